"""Golden examples: a few real pictures and Keras's answers to them, stored inside the version.

Whoever serves the version can replay them: bytes -> `decode_image` -> `Preprocessing.apply` must give `tensors`
exactly, and the model must give `probabilities` within the card's `golden.atol`. The first step that differs is the
broken one.
"""

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.contract.card import LARGEST_ATOL, ModelCard, read_card
from serving.contract.errors import ModelError
from serving.contract.versions import GOLDEN_DIR

ANSWERS_FILE = "answers.npz"
PROOF_FILE = Path("assets.extra") / "proof.npz"


@dataclass(frozen=True, slots=True)
class GoldenExamples:
    """pictures: n encoded files. tensors: uint8 or float32 (n, h, w, c). probabilities: float32 (n, classes)."""

    pictures: tuple[bytes, ...]
    tensors: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.pictures)


def write_golden(version_dir: Path, examples: GoldenExamples) -> None:
    """Store the examples in a version's directory: `000.png`, `001.png`, ... and `answers.npz`."""
    folder = version_dir / GOLDEN_DIR
    folder.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(examples.pictures):
        (folder / f"{index:03d}.png").write_bytes(picture)
    np.savez(folder / ANSWERS_FILE, tensors=examples.tensors, probabilities=examples.probabilities)


def read_golden(version_dir: Path) -> GoldenExamples:
    """Read the golden examples of a version. Raises ModelError where they are missing, damaged or do not agree."""
    folder = version_dir / GOLDEN_DIR
    what = f"the golden examples in {folder}"
    tensors, probabilities = read_arrays(folder / ANSWERS_FILE, what, "tensors", "probabilities")
    try:
        pictures = tuple(path.read_bytes() for path in sorted(folder.glob("*.png")))
    except OSError as exc:
        raise unreadable(what, exc) from exc
    if not tensors.ndim or not probabilities.ndim:
        raise ModelError(f"{what} are no arrays of numbers", hint="Export the model again.")
    if not len(pictures) == len(tensors) == len(probabilities):
        raise ModelError(
            f"{folder} holds {len(pictures)} pictures, {len(tensors)} tensors and {len(probabilities)} rows of "
            "probabilities: there must be one of each for every example",
            hint="Export the model again.",
        )
    return GoldenExamples(pictures, tensors, probabilities)


@dataclass(frozen=True, slots=True)
class Proof:
    """signature, input, output: names in the SavedModel's signatures. given: (n, ...), expected: float32 (n, ...).

    atol: how far any number of an answer may be from the expected one. Raises ModelError where it proves nothing.
    """

    signature: str
    input: str
    output: str
    given: npt.NDArray[Any]
    expected: npt.NDArray[np.float32]
    atol: float

    def __post_init__(self) -> None:
        if not self.given.ndim or not self.expected.ndim or self.expected.dtype.kind != "f":
            raise ModelError("the proof's examples and answers are no arrays of numbers")
        if not 0 <= self.atol <= LARGEST_ATOL:
            raise ModelError(f"the proof allows a difference of {self.atol:g}; {LARGEST_ATOL:g} is the most")
        if not len(self.given) or len(self.given) != len(self.expected):
            raise ModelError(f"the proof holds {len(self.given)} examples and {len(self.expected)} answers")

    def __len__(self) -> int:
        return len(self.given)

    def part(self, begin: int, end: int) -> "Proof":
        """Return the proof of the examples from `begin` to before `end`."""
        return replace(self, given=self.given[begin:end], expected=self.expected[begin:end])

    def difference(self, answers: npt.NDArray[Any]) -> float:
        """Return the largest difference of any number from the expected one; infinity where the shape is another."""
        if answers.shape != self.expected.shape:
            return float("inf")
        return float(np.abs(answers - self.expected).max())


def proof_of(card: ModelCard, golden: GoldenExamples) -> Proof:
    """Make the proof of a classifier. Raises ModelError where the card promises another number of examples."""
    if card.golden.n != len(golden):
        raise ModelError(f"the card promises {card.golden.n} golden examples, and there are {len(golden)}")
    names = (card.input.signature, card.input.tensor, card.output.tensor)
    return Proof(*names, golden.tensors, golden.probabilities, card.golden.atol)


def write_proof(version_dir: Path, proof: Proof) -> None:
    """Store the proof of a model that has no card."""
    path = version_dir / PROOF_FILE
    path.parent.mkdir(exist_ok=True)
    names = np.array([proof.signature, proof.input, proof.output])
    np.savez(path, names=names, given=proof.given, expected=proof.expected, atol=proof.atol)


def has_proof(version_dir: Path) -> bool:
    """Return True where a version holds golden examples, or the proof of a model without a card; perhaps damaged."""
    return (version_dir / GOLDEN_DIR).exists() or (version_dir / PROOF_FILE).exists()


def read_proof(version_dir: Path) -> Proof:
    """Read the proof of a version on disk. Raises ModelError where it is missing or damaged."""
    if (version_dir / GOLDEN_DIR).exists():
        return proof_of(read_card(version_dir), read_golden(version_dir))
    path = version_dir / PROOF_FILE
    names, given, expected, atol = read_arrays(path, f"the proof {path}", "names", "given", "expected", "atol")
    signature, input_name, output = map(str, names)
    return Proof(signature, input_name, output, given, expected, float(atol))


def read_arrays(path: Path, what: str, *names: str) -> list[npt.NDArray[Any]]:
    """Read the named arrays of a file. what: their name in errors. Raises ModelError: missing or damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return [stored[name] for name in names]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as exc:
        raise unreadable(what, exc) from exc


def unreadable(what: str, exc: Exception) -> ModelError:
    """Make the error of a part of a version that cannot be read."""
    return ModelError(f"{what} cannot be read: {exc}", hint="Export the model again.")
