"""Models on disk: which folders are models, and whether anything in a version has changed."""

from pathlib import Path

from serving.contract.versions import SERVING_CONFIG

Fingerprint = tuple[tuple[str, int, int], ...]


def fingerprint(directory: Path) -> Fingerprint:
    """List the name, size and time of every file of a version: the list differs when a copy has gone on."""
    files = []
    for path in sorted(directory.rglob("*")):
        try:
            stat = path.stat()
        except OSError:
            continue
        files.append((str(path.relative_to(directory)), stat.st_size, stat.st_mtime_ns))
    return tuple(files)


def find_models(root: Path) -> dict[str, Path]:
    """Find the models of a folder: each subfolder is one, but for hidden ones and TensorFlow Serving's files.

    Raises OSError when it cannot be listed.
    """
    return {path.name: path for path in sorted(root.iterdir()) if path.is_dir() and _is_model(path.name)}


def _is_model(name: str) -> bool:
    return not name.startswith(".") and name != SERVING_CONFIG
