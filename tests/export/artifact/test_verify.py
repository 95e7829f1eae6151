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
from serving.contract.versions import GOLDEN_DIR

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.integration


def test_a_published_version_verifies(bars_version: Path) -> None:
    verdict = verify(bars_version)
    assert (verdict.ok, verdict.stage, verdict.n) == (True, "done", 8)
    assert verdict.max_abs_difference <= 1e-5


def test_another_tensor_is_found_at_stage_preprocessing(copied: Path) -> None:
    golden = read_golden(copied)
    write_golden(copied, GoldenExamples(golden.pictures, golden.tensors + np.uint8(1), golden.probabilities))
    assert (verify(copied).ok, verify(copied).stage) == (False, "preprocessing")


def test_other_probabilities_are_found_at_stage_model(copied: Path) -> None:
    golden = read_golden(copied)
    write_golden(copied, GoldenExamples(golden.pictures, golden.tensors, golden.probabilities + np.float32(0.01)))
    verdict = verify(copied)
    assert (verdict.ok, verdict.stage) == (False, "model")
    assert verdict.max_abs_difference == pytest.approx(0.01, abs=1e-4)


def test_another_card_in_the_file_is_found_at_stage_card(copied: Path) -> None:
    card = json.loads((copied / CARD_FILE).read_text())
    (copied / CARD_FILE).write_text(json.dumps({**card, "name": "impostor"}))
    assert (verify(copied).ok, verify(copied).stage) == (False, "card")


def test_a_truncated_model_is_found_at_stage_load(copied: Path) -> None:
    (copied / "variables" / "variables.index").unlink()
    assert (verify(copied).ok, verify(copied).stage) == (False, "load")


def test_missing_answers_are_found_at_stage_files(copied: Path) -> None:
    (copied / GOLDEN_DIR / ANSWERS_FILE).unlink()
    assert (verify(copied).ok, verify(copied).stage) == (False, "files")


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no zip", b"not a zip file"])
def test_damaged_answers_are_found_at_stage_files(copied: Path, damage: bytes) -> None:
    (copied / GOLDEN_DIR / ANSWERS_FILE).write_bytes(damage)
    assert (verify(copied).ok, verify(copied).stage) == (False, "files")


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
