"""What proves that another runtime answers as the model did when it was exported: inputs, its answers, and how near.

A classifier's proof is its golden examples. Another model's (the face encoder's) lies in a file of its own.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.contract.arrays import read_arrays
from serving.contract.card import CARD_FILE, ModelCard, read_card
from serving.contract.golden import GoldenExamples, read_golden

PROOF_FILE = Path("assets.extra") / "proof.npz"


@dataclass(frozen=True, slots=True)
class Proof:
    """signature, input, output: names in the SavedModel's signatures. given: (n, ...), expected: float32 (n, ...).

    atol: how far any number of an answer may be from the expected one.
    """

    signature: str
    input: str
    output: str
    given: npt.NDArray[Any]
    expected: npt.NDArray[np.float32]
    atol: float

    def difference(self, answers: npt.NDArray[Any]) -> float:
        """The farthest that a number of the answers is from the expected one; infinity where the shape is another."""
        if answers.shape != self.expected.shape:
            return float("inf")
        return float(np.abs(answers - self.expected).max())


def proof_of(card: ModelCard, golden: GoldenExamples) -> Proof:
    """A classifier's."""
    names = (card.input.signature, card.input.tensor, card.output.tensor)
    return Proof(*names, golden.tensors, golden.probabilities, card.golden.atol)


def write_proof(version_dir: Path, proof: Proof) -> None:
    """Store the proof of a model that has no card."""
    path = version_dir / PROOF_FILE
    path.parent.mkdir(exist_ok=True)
    names = np.array([proof.signature, proof.input, proof.output])
    np.savez(path, names=names, given=proof.given, expected=proof.expected, atol=proof.atol)


def read_proof(version_dir: Path) -> Proof:
    """The proof of a version on disk. Raises ModelError where it is missing or damaged."""
    if (version_dir / CARD_FILE).exists():
        return proof_of(read_card(version_dir), read_golden(version_dir))
    path = version_dir / PROOF_FILE
    names, given, expected, atol = read_arrays(path, f"the proof {path}", "names", "given", "expected", "atol")
    signature, input_name, output = map(str, names)
    return Proof(signature, input_name, output, given, expected, float(atol))
