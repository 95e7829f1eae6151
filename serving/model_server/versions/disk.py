"""Models on disk: which folders are models, and whether anything in a version has changed."""

import os
from pathlib import Path

from serving.contract.versions import SERVING_CONFIG

Fingerprint = tuple[tuple[str, int, int], ...]


def fingerprint(directory: Path) -> Fingerprint:
    """List the name, size and time of change of a version's folder and of all in it.

    The list differs when a copy has gone on or a permission was mended: st_ctime moves with both. Links are
    followed, to each folder once. What cannot be read is left out.
    """
    paths = [str(directory)]
    walked: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(directory, followlinks=True):
        if (identity := _identity(folder)) in walked:
            folders.clear()
            continue
        walked.add(identity)
        paths += [os.path.join(folder, name) for name in (*folders, *files)]
    found = []
    for path in sorted(paths):
        try:
            status = os.stat(path)
        except OSError:
            continue
        found.append((path, status.st_size, status.st_ctime_ns))
    return tuple(found)


def find_models(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Find the models of a folder: each subfolder is one, but for hidden ones and TensorFlow Serving's files.

    Returns the models by name, and the printable names of those left out because they are not UTF-8, which no request
    could name. Raises OSError when the folder cannot be listed.
    """
    models, unnamable = {}, []
    for path in sorted(root.iterdir()):
        if not _is_model(path):
            continue
        if printable(path.name) == path.name:
            models[path.name] = path
        else:
            unnamable.append(printable(path.name))
    return models, unnamable


def printable(text: str) -> str:
    """Replace what is not UTF-8 in a name that the disk gave."""
    return text.encode("utf-8", "backslashreplace").decode()


def _identity(folder: str) -> tuple[int, int]:
    try:
        status = os.stat(folder)
    except OSError:
        return (0, 0)
    return status.st_dev, status.st_ino


def _is_model(path: Path) -> bool:
    try:
        return not path.name.startswith(".") and path.name != SERVING_CONFIG and path.is_dir()
    except OSError:  # a folder that may not be entered
        return False
