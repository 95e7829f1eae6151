"""The folder layout of models: `models/NAME/VERSION/`, a version being a whole number, as in TensorFlow Serving."""

import logging
import re
from functools import lru_cache
from pathlib import Path

GOLDEN_DIR = Path("assets.extra") / "golden"  # in a version: sample images and Keras's answers to them
SAVED_MODEL_FILE = "saved_model.pb"  # in a version: the graph and its signatures
TFLITE_FILE = "model.tflite"  # in a version: the same model for LiteRT; TensorFlow Serving's name for it
SERVE_TAG = "serve"  # of the graph in a SavedModel that is served
SERVING_CONFIG = "serving-config"  # a folder beside the models that holds TensorFlow Serving's files
LARGEST_VERSION = 2**63 - 1

_VERSION = re.compile(r"[0-9]+")

logger = logging.getLogger(__name__)


def number_of_version(name: str) -> int | None:
    """Parse a version's name; None where it is not a number in ASCII digits up to 2^63 - 1.

    The digits are counted first: int() raises ValueError for more than 4,300 of them.
    """
    digits = name.lstrip("0") or "0"
    if not _VERSION.fullmatch(name) or len(digits) > len(str(LARGEST_VERSION)) or int(digits) > LARGEST_VERSION:
        return None
    return int(digits)


def find_versions(model_dir: Path) -> dict[int, Path]:
    """Map the version numbers of a model on disk to their paths, by TensorFlow Serving's rule.

    A version is a child whose whole name is a number in ASCII digits up to 2^63 - 1 (`00000123` is 123), a plain file
    too: it is a version that fails to load. Where two names are the same number the last in the order of names wins.
    Raises OSError where the folder cannot be listed.
    Source: tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc.
    """
    versions: dict[int, Path] = {}
    for child in sorted(model_dir.iterdir(), key=lambda path: path.name):
        number = number_of_version(child.name)
        if number is None:
            continue
        if number in versions:
            _warn_of_two_names(model_dir, versions[number].name, child.name)
        versions[number] = child
    return versions


@lru_cache(maxsize=1024)  # a server lists the folder every second; the log has it once
def _warn_of_two_names(model_dir: Path, name: str, other: str) -> None:
    logger.warning("%s: %s and %s are the same version; %s is used", model_dir, name, other, other)


def version_dirs(model_dir: Path) -> list[Path]:
    """List the versions of a model on disk, oldest first; empty where there are none or no such folder."""
    return [path for _, path in sorted(find_versions(model_dir).items())] if model_dir.is_dir() else []
