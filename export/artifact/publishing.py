"""A version is written aside and appears with one rename: a server never sees half of one.

While an export runs it holds a lock (flock) on its `.tmp-*` folder. The lock goes with the process, however it ends, so
the next export can tell what is abandoned from what is in use, and removes it.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from export.artifact import serving_config
from export.progress import say
from serving.contract.errors import NoSpace, UsageError
from serving.contract.versions import SERVING_CONFIG, find_versions

DRAFT_PREFIX = ".tmp-"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT}


class Draft:
    """A version that nobody sees yet. path: the folder to write into."""

    def __init__(self, shelf: Path, path: Path) -> None:
        self.shelf = shelf
        self.path = path

    def publish(self) -> Path:
        """Make the draft the next version with one rename. Returns `shelf/<number>`.

        Another export may take the number first: then the rename fails and the next number is tried. TensorFlow
        Serving's files are refreshed; where they cannot be, that is said: the version is there all the same.
        """
        _flush_tree(self.path)
        while True:
            version = self.shelf / str(latest_version(self.shelf) + 1)
            try:
                self.path.rename(version)
            except OSError as exc:
                if exc.errno not in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
                    raise
                continue
            _flush(self.shelf)
            try:
                serving_config.refresh(self.shelf.parent)
            except (UsageError, OSError) as exc:
                say(f"TensorFlow Serving's files were not refreshed: {exc}")
            return version


@contextlib.contextmanager
def drafted(models: Path, name: str) -> Iterator[Draft]:
    """A draft of the next version of models/name; removed again unless it is published.

    Raises UsageError where `name` cannot be a folder's name or `models` cannot be written, NoSpace when the disk fills
    while the draft is written.
    """
    shelf = models / check_name(name)
    try:
        shelf.mkdir(parents=True, exist_ok=True)
        path, lock = _locked_folder(shelf)
    except OSError as exc:
        raise _translated(exc, shelf) from exc
    try:
        yield Draft(shelf, path)
    except OSError as exc:
        if exc.errno in OUT_OF_SPACE:
            raise _translated(exc, shelf) from exc
        raise
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def check_name(name: str) -> str:
    """The name, if it can be the name of a folder and a part of a URL; else UsageError."""
    if not NAME.fullmatch(name) or name == SERVING_CONFIG:
        raise UsageError(
            f"{name!r} cannot be a model's name",
            hint="Use letters, digits, '-', '_' and '.', beginning with a letter, a digit or '_'; "
            f"{SERVING_CONFIG} is taken.",
        )
    return name


def latest_version(shelf: Path) -> int:
    """The highest version number in a model's folder, 0 where there is none."""
    return max(find_versions(shelf), default=0)


def sweep(models: Path, name: str) -> list[Path]:
    """Remove the drafts that killed exports left behind; those of living processes stay. Returns what was removed."""
    removed = []
    for path in sorted((models / check_name(name)).glob(f"{DRAFT_PREFIX}*")):
        with contextlib.suppress(FileNotFoundError), _trying_to_lock(path) as is_abandoned:
            if is_abandoned:
                shutil.rmtree(path)
                removed.append(path)
    return removed


def check_space(models: Path, needed_bytes: int) -> None:
    """Refuse to begin what the disk cannot hold. Raises NoSpace."""
    free = shutil.disk_usage(models).free
    if free < needed_bytes:
        raise NoSpace(
            f"{models} has {free / 1e6:,.0f} MB free; the version needs about {needed_bytes / 1e6:,.0f} MB",
            hint="Free some space, or name another folder with --out.",
        )


def _locked_folder(shelf: Path) -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=DRAFT_PREFIX, dir=shelf))
        try:
            path.chmod(0o755)  # mkdtemp's 0700 would lock out a server that runs as another user
            lock = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # another export's sweep came between the calls: it was nobody's yet
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return path, lock
        os.close(lock)


@contextlib.contextmanager
def _trying_to_lock(path: Path) -> Iterator[bool]:
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(handle)


def _translated(exc: OSError, shelf: Path) -> UsageError | NoSpace:
    if exc.errno in OUT_OF_SPACE:
        return NoSpace(
            f"the disk that holds {shelf} is full; nothing was published",
            hint="Free some space, or name another folder with --out.",
        )
    return UsageError(f"{shelf} cannot be written: {exc.strerror}", hint="Name another folder with --out.")


def _flush_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for file in files:
            _flush(Path(root) / file)
        _flush(Path(root))


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
