"""Arrays that a version keeps in an .npz file."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.contract.errors import ModelError


def read_arrays(path: Path, what: str, *names: str) -> list[npt.NDArray[Any]]:
    """The named arrays of a file. what: the words for them. Raises ModelError where they are missing or damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return [stored[name] for name in names]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as exc:
        raise unreadable(what, exc) from exc


def unreadable(what: str, exc: Exception) -> ModelError:
    """What belongs to a version cannot be read."""
    return ModelError(f"{what} cannot be read: {exc}", hint="Export the model again.")
