"""Opening a version: the runtime that fits, the reason where LiteRT does not, and a replay through the same code."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serving.contract.golden import read_golden, read_proof
from serving.contract.versions import TFLITE_FILE
from serving.runtimes.opening import LITERT, TENSORFLOW, open_version
from serving.runtimes.runtime import NotFit, replay, run_signature
from serving.runtimes.status import CallError


@pytest.fixture
def copied(tmp_path: Path, bars_version: Path) -> Path:
    return Path(shutil.copytree(bars_version, tmp_path / "bars" / "1"))


def test_litert_is_preferred_and_its_answers_are_measured(bars_version: Path) -> None:
    opened = open_version(bars_version)
    assert (opened.name, opened.why_not_litert) == (LITERT, "")
    assert opened.difference == replay(opened.runtime, read_proof(bars_version))


def test_both_runtimes_answer_a_signature_by_its_own_names(bars_version: Path) -> None:
    golden = read_golden(bars_version)
    for name in (LITERT, TENSORFLOW):
        runtime = open_version(bars_version, [name]).runtime
        answers = run_signature(runtime, "serving_default", {"image": golden.tensors}, "probabilities")
        assert np.abs(answers - golden.probabilities).max() <= 1e-5


def test_a_version_without_a_tflite_file_runs_on_tensorflow_and_nothing_is_to_be_said(copied: Path) -> None:
    (copied / TFLITE_FILE).unlink()
    opened = open_version(copied)
    assert (opened.name, opened.why_not_litert, opened.difference) == (TENSORFLOW, "", None)
    with pytest.raises(NotFit, match=r"there is no model\.tflite"):
        open_version(copied, [LITERT])


def test_the_reason_is_told_where_litert_gives_way(copied: Path) -> None:
    (copied / TFLITE_FILE).write_bytes(b"not a model")
    opened = open_version(copied)
    assert opened.name == TENSORFLOW
    assert "cannot be loaded" in opened.why_not_litert


def test_a_given_proof_takes_the_place_of_the_version_s(bars_version: Path) -> None:
    proof = read_proof(bars_version)
    moved = replace(proof, expected=proof.expected + np.float32(0.01))
    with pytest.raises(NotFit, match=r"differs by 0\.01 from the exported model"):
        open_version(bars_version, [LITERT], proof=moved)


def test_answers_that_are_no_numbers_differ_without_limit(bars_version: Path) -> None:
    proof = read_proof(bars_version)
    expected = np.full_like(proof.expected, np.nan)
    assert replay(open_version(bars_version).runtime, replace(proof, expected=expected)) == float("inf")


def test_a_signature_or_a_name_that_is_not_there_is_refused(bars_version: Path) -> None:
    runtime = open_version(bars_version).runtime
    with pytest.raises(CallError, match='Serving signature key "other" not found'):
        run_signature(runtime, "other", {}, "probabilities")
    with pytest.raises(CallError, match="signature serving_default has no picture, scores"):
        run_signature(runtime, "serving_default", {"picture": np.zeros(1)}, "scores")
