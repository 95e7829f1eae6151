"""Publish a version with one rename: a server never sees half of one.

While an export runs, it holds a lock (flock) on its `.tmp-*` folder. The lock ends with the process, however that ends,
so the next export can tell abandoned folders from those in use, and removes them.
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
from serving.contract.durable import flush
from serving.contract.errors import NoSpace, UsageError
from serving.contract.manifest import write_manifest
from serving.contract.versions import LARGEST_VERSION, SERVING_CONFIG, find_versions

DRAFT_PREFIX = ".tmp-"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT}


class Draft:
    """A version that is not published yet. path: the folder to write into."""

    def __init__(self, shelf: Path, path: Path) -> None:
        self.shelf = shelf
        self.path = path

    def publish(self) -> Path:
        """Write the manifest, then rename the draft to the next version number. Returns `shelf/<number>`.

        If another export takes the number first, the rename fails and the next number is tried. Then TensorFlow
        Serving's files are refreshed; a failure to do so is printed, and the version stays published.
        """
        write_manifest(self.path)
        _flush_tree(self.path)
        while True:
            version = self.shelf / str(next_number(self.shelf))
            try:
                self.path.rename(version)
            except OSError as exc:
                if exc.errno not in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
                    raise
                continue
            flush(self.shelf)
            try:
                serving_config.refresh(self.shelf.parent)
            except (UsageError, OSError) as exc:
                say(f"TensorFlow Serving's files were not refreshed: {exc}")
            return version


@contextlib.contextmanager
def draft_version(models: Path, name: str) -> Iterator[Draft]:
    """Open a draft of the next version of models/name; unless it is published, nothing of it remains.

    Drafts that killed exports left behind are removed first. Raises UsageError where `name` cannot be a folder's name
    or `models` cannot be written, NoSpace where the disk fills up while the draft is written.
    """
    shelf = models / check_name(name)
    try:
        for abandoned in remove_abandoned_drafts(shelf):
            say(f"removed {abandoned}, left behind by a killed export")
        path, lock = _locked_folder(shelf)
    except OSError as exc:
        raise _to_sightline_error(exc, shelf) from exc
    try:
        next_number(shelf)  # raises before the work is done, too
        yield Draft(shelf, path)
    except OSError as exc:
        if exc.errno in OUT_OF_SPACE:
            raise _to_sightline_error(exc, shelf) from exc
        raise
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)
        with contextlib.suppress(OSError):
            shelf.rmdir()  # succeeds only where it is empty: the first export of this name failed


def check_name(name: str) -> str:
    """Return the name if it can be a folder's name and part of a URL; else raise UsageError."""
    if not NAME.fullmatch(name) or name == SERVING_CONFIG:
        raise UsageError(
            f"{name!r} cannot be a model's name.",
            hint="Use letters, digits, '-', '_' and '.', beginning with a letter, a digit or '_'; "
            f"{SERVING_CONFIG} is taken.",
        )
    return name


def next_number(shelf: Path) -> int:
    """One more than the highest version number in a model's folder. Raises UsageError where there is no higher one."""
    highest = max(find_versions(shelf), default=0)
    if highest == LARGEST_VERSION:
        raise UsageError(
            f"{shelf} holds version {highest}, the highest number that there is.",
            hint="Rename that folder to a smaller number, or give the model another --name.",
        )
    return highest + 1


def remove_abandoned_drafts(shelf: Path) -> list[Path]:
    """Remove the drafts of killed exports from a model's folder; those in use stay. Returns the removed paths."""
    removed = []
    for path in sorted(shelf.glob(f"{DRAFT_PREFIX}*")):
        with contextlib.suppress(FileNotFoundError), _trying_to_lock(path) as is_abandoned:
            if is_abandoned:
                shutil.rmtree(path)
                removed.append(path)
    return removed


def check_space(models: Path, needed_bytes: int) -> None:
    """Raise NoSpace where the disk has fewer free bytes than needed."""
    free = shutil.disk_usage(models).free
    if free < needed_bytes:
        raise NoSpace(
            f"{models} has {free / 1e6:,.0f} MB free; the version needs about {needed_bytes / 1e6:,.0f} MB.",
            hint="Free some space, or name another folder with --out.",
        )


def _locked_folder(shelf: Path) -> tuple[Path, int]:
    while True:
        shelf.mkdir(parents=True, exist_ok=True)
        try:
            path = Path(tempfile.mkdtemp(prefix=DRAFT_PREFIX, dir=shelf))
            path.chmod(0o755)  # mkdtemp's 0700 would lock out a server that runs as another user
            lock = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # before it was locked, another export removed it or the empty shelf
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


def _to_sightline_error(exc: OSError, shelf: Path) -> UsageError | NoSpace:
    if exc.errno in OUT_OF_SPACE:
        return NoSpace(
            f"The disk that holds {shelf} is full; nothing was published.",
            hint="Free some space, or name another folder with --out.",
        )
    return UsageError(f"{shelf} cannot be written: {exc.strerror}.", hint="Name another folder with --out.")


def _flush_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for file in files:
            flush(Path(root) / file)
        flush(Path(root))
