"""Opening a version: the runtime that fits, the reason where LiteRT does not, and a replay through the same code."""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.contract.card import CARD_FILE
from serving.contract.golden import ANSWERS_FILE, read_golden, read_proof, write_golden
from serving.contract.manifest import MANIFEST_FILE, write_manifest
from serving.contract.versions import GOLDEN_DIR, SAVED_MODEL_FILE, TFLITE_FILE
from serving.runtimes.opening import LITERT, TENSORFLOW, RuntimeName, open_version
from serving.runtimes.runtime import NotFit, Runtime, replay, run_signature
from serving.runtimes.status import CallError
from serving.runtimes.tensors import Array
from tests.bars import scale_weights, swap_labels


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
    write_manifest(copied)
    opened = open_version(copied)
    assert (opened.name, opened.why_not_litert) == (TENSORFLOW, "")
    assert opened.difference is not None
    with pytest.raises(NotFit, match=r"there is no model\.tflite"):
        open_version(copied, [LITERT])


def test_the_reason_is_told_where_litert_gives_way(copied: Path) -> None:
    (copied / TFLITE_FILE).write_bytes(b"not a model")
    write_manifest(copied)
    opened = open_version(copied)
    assert opened.name == TENSORFLOW
    assert "cannot be loaded" in opened.why_not_litert


def test_answers_that_are_no_numbers_differ_without_limit(bars_version: Path) -> None:
    proof = read_proof(bars_version)
    expected = np.full_like(proof.expected, np.nan)
    assert replay(open_version(bars_version).runtime, replace(proof, expected=expected)) == float("inf")


def change_card(version: Path, change: Callable[[dict[str, Any]], None]) -> None:
    card = json.loads((version / CARD_FILE).read_text())
    change(card)
    (version / CARD_FILE).write_text(json.dumps(card))


def without_examples(version: Path) -> None:
    np.savez(version / GOLDEN_DIR / ANSWERS_FILE, tensors=np.zeros((0, 28, 28, 1)), probabilities=np.zeros((0, 2)))
    for picture in (version / GOLDEN_DIR).glob("*.png"):
        picture.unlink()


def move_answers(version: Path, by: float) -> None:
    golden = read_golden(version)
    write_golden(version, replace(golden, probabilities=golden.probabilities + np.float32(by)))


def nested_too_deep(version: Path) -> None:
    (version / CARD_FILE).write_text("[" * 100_000)


EITHER, BY_LITERT, BY_TENSORFLOW = (LITERT, TENSORFLOW), (LITERT,), (TENSORFLOW,)
TAMPERINGS: dict[str, tuple[Callable[[Path], Any], tuple[RuntimeName, ...], str]] = {
    "a SavedModel with other weights": (lambda v: scale_weights(v, 0.5), BY_TENSORFLOW, "answers on TensorFlow differ"),
    "weights that answer NaN": (lambda v: scale_weights(v, np.nan), BY_TENSORFLOW, "differ by inf"),
    "labels swapped in model.tflite": (lambda v: swap_labels(v / TFLITE_FILE), EITHER, "card of model.tflite is not"),
    "labels swapped in the SavedModel": (lambda v: swap_labels(v / SAVED_MODEL_FILE), EITHER, "is not the one"),
    "labels swapped in the SavedModel, alone": (
        lambda v: swap_labels(v / SAVED_MODEL_FILE),
        BY_TENSORFLOW,
        "signature model_card is not",
    ),
    "labels swapped in both models": (
        lambda v: (swap_labels(v / SAVED_MODEL_FILE), swap_labels(v / TFLITE_FILE)),
        EITHER,
        "signature model_card is not",
    ),
    "labels swapped in the file": (lambda v: swap_labels(v / CARD_FILE), EITHER, "signature model_card is not"),
    "atol: 1e9": (lambda v: change_card(v, lambda c: c["golden"].update(atol=1e9)), EITHER, "golden.atol is 1e+09"),
    "atol: 0.1 in the file alone": (
        lambda v: change_card(v, lambda c: c["golden"].update(atol=0.1)),
        EITHER,
        "signature model_card is not",
    ),
    "other expected answers": (lambda v: move_answers(v, 0.01), EITHER, "differ by 0.01"),
    "expected answers that are NaN": (lambda v: move_answers(v, np.nan), EITHER, "differ by inf"),
    "no examples": (without_examples, EITHER, "promises 8 golden examples, and there are 0"),
    "an empty golden file": (lambda v: (v / GOLDEN_DIR / ANSWERS_FILE).write_bytes(b""), EITHER, "cannot be read"),
    "a golden file less": (lambda v: (v / GOLDEN_DIR / ANSWERS_FILE).unlink(), EITHER, "cannot be read"),
    "a card nested too deep": (nested_too_deep, EITHER, "the card is not JSON"),
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_a_version_that_is_not_the_exported_one_is_refused_with_the_reason(copied: Path, tampering: str) -> None:
    change, runtimes, reason = TAMPERINGS[tampering]
    change(copied)
    with pytest.raises(CallError, match="differ from the manifest that the export wrote"):
        open_version(copied, runtimes)
    write_manifest(copied)  # of somebody who means it
    with pytest.raises(CallError, match=re.escape(reason)):
        open_version(copied, runtimes)
    (copied / MANIFEST_FILE).unlink()  # of an older export
    with pytest.raises(CallError, match=re.escape(reason)):
        open_version(copied, runtimes)


def test_an_older_export_is_served_and_said_to_be_unproven(copied: Path) -> None:
    assert open_version(copied).unproven == ""
    (copied / MANIFEST_FILE).unlink()
    assert "It has no assets.extra/manifest.json" in open_version(copied).unproven
    shutil.rmtree(copied / GOLDEN_DIR)
    opened = open_version(copied)
    assert (opened.difference, bool(opened.unproven)) == (None, True)


class Slow:
    """A runtime of which every example takes a second, by a clock that is turned by hand."""

    def __init__(self, inner: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inner, self.signatures, self.now, self.rows = inner, inner.signatures, 0.0, []
        monkeypatch.setattr("serving.runtimes.runtime.time.monotonic", lambda: self.now)

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], deadline: float | None = None) -> list[Array]:
        rows = len(next(iter(feeds.values())))
        self.rows.append(rows)
        self.now += rows
        return self.inner.run(feeds, fetches, deadline)

    def close(self) -> None:
        self.inner.close()


def test_a_slow_model_replays_as_many_examples_as_the_time_allows(
    bars_version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, proof = open_version(bars_version).runtime, read_proof(bars_version)
    for seconds, rows in ((4.5, [1, 3]), (0.5, [1]), (100.0, [1, 7])):
        slow = Slow(runtime, monkeypatch)
        assert replay(slow, proof, seconds) <= proof.atol
        assert slow.rows == rows


def test_a_signature_or_a_name_that_is_not_there_is_refused(bars_version: Path) -> None:
    runtime = open_version(bars_version).runtime
    with pytest.raises(CallError, match='Serving signature key "other" not found'):
        run_signature(runtime, "other", {}, "probabilities")
    with pytest.raises(CallError, match="signature serving_default has no picture, scores"):
        run_signature(runtime, "serving_default", {"picture": np.zeros(1)}, "scores")
