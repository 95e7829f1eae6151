"""Golden examples: a few real pictures and what Keras said of them, stored inside the version.

Whoever serves the version can replay them: bytes -> `decode_image` -> `Preprocessing.apply` must give `tensors`
exactly, and the model must give `probabilities` within the card's `golden.atol`. The first step that differs is the
broken one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.contract.arrays import read_arrays, unreadable
from serving.contract.errors import ModelError
from serving.contract.versions import GOLDEN_DIR

ANSWERS_FILE = "answers.npz"


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
    """The golden examples of a version on disk. Raises ModelError where they are missing, damaged or do not agree."""
    folder = version_dir / GOLDEN_DIR
    what = f"the golden examples in {folder}"
    tensors, probabilities = read_arrays(folder / ANSWERS_FILE, what, "tensors", "probabilities")
    try:
        pictures = tuple(path.read_bytes() for path in sorted(folder.glob("*.png")))
    except OSError as exc:
        raise unreadable(what, exc) from exc
    if not len(pictures) == len(tensors) == len(probabilities):
        raise ModelError(
            f"{folder} holds {len(pictures)} pictures, {len(tensors)} tensors and {len(probabilities)} rows of "
            "probabilities: there must be one of each for every example",
            hint="Export the model again.",
        )
    return GoldenExamples(pictures, tensors, probabilities)
