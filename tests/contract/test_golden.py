"""Proofs of another runtime: stored, read, and compared with answers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.contract.errors import ModelError
from serving.contract.golden import PROOF_FILE, Proof, read_proof, write_proof

PROOF = Proof("encode", "chips", "encodings", np.zeros((2, 3, 3), np.uint8), np.ones((2, 4), np.float32), 1e-5)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_proof(tmp_path, PROOF)
    read = read_proof(tmp_path)
    assert (read.signature, read.input, read.output, read.atol) == ("encode", "chips", "encodings", 1e-5)
    assert np.array_equal(read.given, PROOF.given)
    assert read.given.dtype == np.uint8
    assert np.array_equal(read.expected, PROOF.expected)


def test_difference_is_the_largest_of_any_number() -> None:
    answers = PROOF.expected.copy()
    answers[1, 2] -= 0.25
    assert PROOF.difference(answers) == 0.25
    assert PROOF.difference(answers[:1]) == np.inf
    assert np.isnan(PROOF.difference(answers * np.nan))


@pytest.mark.parametrize("damage", [None, b"", b"PK\x03\x04 no zip"])
def test_a_missing_or_damaged_proof_says_what_to_do(tmp_path: Path, damage: bytes | None) -> None:
    if damage is not None:
        (tmp_path / PROOF_FILE).parent.mkdir()
        (tmp_path / PROOF_FILE).write_bytes(damage)
    with pytest.raises(ModelError, match=r"proof\.npz cannot be read") as caught:
        read_proof(tmp_path)
    assert caught.value.hint == "Export the model again."


def test_a_proof_that_lacks_an_array_is_damaged(tmp_path: Path) -> None:
    (tmp_path / PROOF_FILE).parent.mkdir()
    np.savez(tmp_path / PROOF_FILE, given=PROOF.given)
    with pytest.raises(ModelError, match="cannot be read"):
        read_proof(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"atol": 1e9}, "allows a difference of 1e"),
        ({"atol": float("nan")}, "allows a difference of nan"),
        ({"given": PROOF.given[:0], "expected": PROOF.expected[:0]}, "0 examples and 0 answers"),
        ({"given": PROOF.given[:1]}, "1 examples and 2 answers"),
        ({"given": np.array(1, np.uint8)}, "no arrays of numbers"),
        ({"expected": np.array(1, np.float32)}, "no arrays of numbers"),
        ({"expected": np.array(["a", "b"])}, "no arrays of numbers"),
    ],
)
def test_a_proof_that_proves_nothing_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        replace(PROOF, **change)
