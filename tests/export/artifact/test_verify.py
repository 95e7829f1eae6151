"""Verification finds the stage at which a version differs from what was exported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export.artifact.verify import verify
from serving.contract.card import CARD_FILE
from serving.contract.golden import ANSWERS_FILE, GoldenExamples, read_golden, write_golden
from serving.contract.manifest import MANIFEST_FILE, check_files
from serving.contract.versions import GOLDEN_DIR, SAVED_MODEL_FILE, TFLITE_FILE
from tests.bars import scale_weights, swap_labels

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.integration


@pytest.fixture
def older(copied: Path) -> Path:
    """A version of an export that wrote no manifest."""
    (copied / MANIFEST_FILE).unlink()
    return copied


def test_a_published_version_verifies(bars_version: Path) -> None:
    verdict = verify(bars_version)
    assert (verdict.ok, verdict.stage, verdict.n) == (True, "done", 8)
    assert verdict.max_abs_difference <= 1e-5
    assert verdict.unproven == ""


def test_a_file_that_was_changed_lost_or_added_is_found_at_stage_files(copied: Path) -> None:
    assert check_files(copied)
    (copied / "more").touch()
    verdict = verify(copied)
    assert (verdict.ok, verdict.stage) == (False, "files")
    assert "more was added" in verdict.detail


def test_an_older_export_verifies_and_lacks_a_manifest(older: Path) -> None:
    verdict = verify(older)
    assert verdict.ok
    assert verdict.unproven == "there is no assets.extra/manifest.json to compare the files with"


@pytest.mark.parametrize(("file", "stage"), [(SAVED_MODEL_FILE, "card"), (TFLITE_FILE, "tflite")])
def test_labels_that_were_swapped_in_one_copy_of_the_card_are_found(older: Path, file: str, stage: str) -> None:
    swap_labels(older / file)
    assert (verify(older).ok, verify(older).stage) == (False, stage)


def test_other_weights_in_the_saved_model_are_found_at_stage_model(older: Path) -> None:
    scale_weights(older, 0.5)
    assert (verify(older).ok, verify(older).stage) == (False, "model")


def test_a_file_that_cannot_be_read_is_a_verdict(older: Path) -> None:
    (older / "circle").symlink_to("circle")
    assert (verify(older).ok, verify(older).stage) == (False, "files")


def test_another_tensor_is_found_at_stage_preprocessing(older: Path) -> None:
    golden = read_golden(older)
    write_golden(older, GoldenExamples(golden.pictures, golden.tensors + np.uint8(1), golden.probabilities))
    assert (verify(older).ok, verify(older).stage) == (False, "preprocessing")


def test_other_probabilities_are_found_at_stage_model(older: Path) -> None:
    golden = read_golden(older)
    write_golden(older, GoldenExamples(golden.pictures, golden.tensors, golden.probabilities + np.float32(0.01)))
    verdict = verify(older)
    assert (verdict.ok, verdict.stage) == (False, "model")
    assert verdict.max_abs_difference == pytest.approx(0.01, abs=1e-4)


def test_another_card_in_the_file_is_found_at_stage_card(older: Path) -> None:
    card = json.loads((older / CARD_FILE).read_text())
    (older / CARD_FILE).write_text(json.dumps({**card, "name": "impostor"}))
    assert (verify(older).ok, verify(older).stage) == (False, "card")


def test_a_truncated_model_is_found_at_stage_load(older: Path) -> None:
    (older / "variables" / "variables.index").unlink()
    assert (verify(older).ok, verify(older).stage) == (False, "load")


def test_missing_answers_are_found_at_stage_files(older: Path) -> None:
    (older / GOLDEN_DIR / ANSWERS_FILE).unlink()
    assert (verify(older).ok, verify(older).stage) == (False, "files")


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no zip", b"not a zip file"])
def test_damaged_answers_are_found_at_stage_files(older: Path, damage: bytes) -> None:
    (older / GOLDEN_DIR / ANSWERS_FILE).write_bytes(damage)
    assert (verify(older).ok, verify(older).stage) == (False, "files")


def test_verify_command_prints_json_and_says_it_with_its_exit_status(bars_version: Path, copied: Path) -> None:
    (copied / GOLDEN_DIR / ANSWERS_FILE).write_bytes(b"not a zip file")
    for version, status in ((bars_version, 0), (copied, 1)):
        done = subprocess.run(
            [sys.executable, "-m", "export", "verify", str(version), "--json"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": "."},
        )
        assert done.returncode == status, done.stderr
        answer = json.loads(done.stdout)
        assert answer["ok"] is (status == 0)
        assert {"stage", "n", "max_abs_difference", "detail"} < set(answer)
