"""Versions on disk: which folders are versions, and whether anything in one has changed.

Source of the rules: tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc.
"""

import logging
import re
from pathlib import Path

from serving.contract.versions import SERVING_CONFIG

logger = logging.getLogger(__name__)

LARGEST_VERSION = 2**63 - 1
_VERSION = re.compile(r"[0-9]+")

Fingerprint = tuple[tuple[str, int, int], ...]


def find_versions(base_path: Path) -> dict[int, Path]:
    """The versions under a base path: its children whose whole name is a number (`00000123` is 123).

    Raises OSError when the base path cannot be listed.
    """
    versions: dict[int, Path] = {}
    for child in sorted(base_path.iterdir(), key=lambda path: path.name):
        if not _VERSION.fullmatch(child.name) or int(child.name) > LARGEST_VERSION:
            continue
        if int(child.name) in versions:
            logger.warning("%s: %s and %s are the same version", base_path, versions[int(child.name)].name, child.name)
        versions[int(child.name)] = child
    return versions


def fingerprint(directory: Path) -> Fingerprint:
    """The names, sizes and times of every file of a version: it differs when a copy has gone on."""
    files = []
    for path in sorted(directory.rglob("*")):
        try:
            stat = path.stat()
        except OSError:
            continue
        files.append((str(path.relative_to(directory)), stat.st_size, stat.st_mtime_ns))
    return tuple(files)


def find_models(root: Path) -> dict[str, Path]:
    """The models of a folder: each subfolder is one, but for hidden ones and TensorFlow Serving's files.

    Raises OSError when it cannot be listed.
    """
    return {path.name: path for path in sorted(root.iterdir()) if path.is_dir() and _is_model(path.name)}


def _is_model(name: str) -> bool:
    return not name.startswith(".") and name != SERVING_CONFIG
