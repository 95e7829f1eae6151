"""Folders of pictures: one walk for training and for scoring, so that both see the same files."""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path

from serving.contract.headers import START_BYTES, announces_picture
from serving.contract.image import ENDINGS
from serving.contract.names import shown_path

# What systems leave behind, in lower case. Names that begin with a dot are hidden without being listed here.
SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
SYSTEM_FOLDERS = frozenset({"__macosx", "$recycle.bin", "system volume information", "@eadir"})
HIDDEN, SYSTEM, REPEATED, SPECIAL = "hidden", "of the operating system", "listed already, or a loop", "pipes or devices"
NOT_PICTURES = "not pictures"
EXAMPLES = 3  # names for each reason


class LeftOut:
    """Counts what a listing leaves out, by reason, and keeps the first names."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, reason: str, path: str) -> None:
        """Count one file or folder."""
        self.counts[reason] += 1
        examples = self._examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(shown_path(os.path.basename(path.rstrip("/")) or path))

    def clear(self) -> None:
        """Begin anew."""
        self.counts.clear()
        self._examples.clear()

    def lines(self) -> list[str]:
        """Write a line for each reason: `left out: 2 hidden (.git, .ipynb_checkpoints)`."""
        return [f"left out: {count:,} {reason} ({self._named(reason)})" for reason, count in self.counts.items()]

    def _named(self, reason: str) -> str:
        examples = self._examples[reason]
        return ", ".join([*examples, *(["..."] if self.counts[reason] > len(examples) else [])])


def name_reason(path: str) -> str | None:
    """Tell why a file is left out by its name or that of a folder above it: HIDDEN or SYSTEM; None where it counts.

    path: relative to what was named by the user, with / between its parts.
    """
    *folders, name = path.split("/")
    for folder in folders:
        if reason := folder_reason(folder):
            return reason
    return HIDDEN if name.startswith(".") else SYSTEM if name.lower() in SYSTEM_FILES else None


def folder_reason(name: str) -> str | None:
    """Tell why a folder is left out by its name: HIDDEN or SYSTEM; None where it counts."""
    if name.startswith(".") and name not in (".", ".."):
        return HIDDEN
    return SYSTEM if name.lower() in SYSTEM_FOLDERS else None


def walk(root: str, left_out: LeftOut) -> Iterator[str]:
    """Yield every file under a folder, folder by folder in the order of their names, in the same order each time.

    Hidden files and folders, and what operating systems leave behind, do not count. A link to a folder is followed
    after all real folders, and a folder is listed once, however many links lead to it. A broken link is yielded: that
    it cannot be read is for the caller to say. Raises OSError for a folder that cannot be listed.
    """
    seen = {
        (status.st_dev, status.st_ino) for status in map(os.stat, Path(root).resolve().parents)
    }  # links up are loops
    links = deque([root])
    while links:
        stack = [links.popleft()]
        while stack:
            folder = stack.pop()
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                left_out.add(REPEATED, folder)
                continue
            seen.add((status.st_dev, status.st_ino))
            files, folders, linked = _children(folder, left_out)
            yield from sorted(files)
            stack += sorted(folders, reverse=True)
            links += sorted(linked)


def _children(folder: str, left_out: LeftOut) -> tuple[list[str], list[str], list[str]]:
    """(files, real folders, links to folders) of a folder, as paths."""
    files: list[str] = []
    folders: list[str] = []
    linked: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            is_folder, is_file = _kind(entry)
            if reason := folder_reason(entry.name) if is_folder else name_reason(entry.name):
                left_out.add(reason, entry.name)
            elif is_folder:
                (linked if entry.is_symlink() else folders).append(entry.path)
            elif is_file or entry.is_symlink():
                files.append(entry.path)
            else:
                left_out.add(SPECIAL, entry.name)
    return files, folders, linked


def _kind(entry: os.DirEntry[str]) -> tuple[bool, bool]:
    """(is a folder, is a file), or links to one. A link to itself is neither."""
    try:
        return entry.is_dir(), entry.is_file()
    except OSError:
        return False, False


def is_picture(path: str, first_bytes: Callable[[], bytes]) -> bool:
    """Tell a picture from any other file, by the ending of its name where that is a picture's, else by its content.

    first_bytes: reads START_BYTES; called only where the ending does not decide.
    """
    return os.path.splitext(path)[1].lower() in ENDINGS or announces_picture(first_bytes())


def is_picture_file(path: str) -> bool:
    """`is_picture` of a file on disk; what cannot be read counts as one, so that its reader says why."""
    try:
        return is_picture(path, lambda: _first_bytes(path))
    except OSError:
        return True


def picture_files(root: str, left_out: LeftOut) -> Iterator[str]:
    """`walk` without the files that are not pictures."""
    for path in walk(root, left_out):
        if is_picture_file(path):
            yield path
        else:
            left_out.add(NOT_PICTURES, path)


def _first_bytes(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read(START_BYTES)
