"""Export a gallery to a file and import it, to move it between stores.

The file holds everything, unencrypted: protect it like the gallery. It is JSON lines: first
`{"format", "version", "gallery", "encoder"}`, then one line for each entry.
"""

import base64
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from serving.contract.errors import UsageError
from serving.faces.galleries.gallery import Archive, Entry, Store, unknown_gallery

FORMAT, VERSION = "sightline-gallery", 1


def export_gallery(store: Archive, gallery: str, path: Path) -> int:
    """Write a gallery to a file, which appears once it is complete. Returns the number of encodings.

    Raises UnknownGallery, and UsageError when the file cannot be written.
    """
    info = next((each for each in store.galleries() if each.name == gallery), None)
    if info is None:
        raise unknown_gallery(gallery)
    expires = {person.name: person.expires for person in store.people(gallery)}
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    count = 0
    try:
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            head = {"format": FORMAT, "version": VERSION, "gallery": gallery, "encoder": info.encoder}
            file.write(json.dumps(head) + "\n")
            for entry in store.entries(gallery):
                file.write(json.dumps(_row(entry, expires.get(entry.person, "")), ensure_ascii=False) + "\n")
                count += 1
        draft.replace(path)
    except OSError as exc:
        raise UsageError(f"{path} cannot be written: {exc.strerror}.") from exc
    finally:
        draft.unlink(missing_ok=True)
    return count


def import_gallery(store: Store, path: Path, gallery: str | None = None) -> tuple[str, int]:
    """Add a file's entries to a gallery, by default the one it names. Returns (gallery, number of new encodings).

    A person is added completely or not at all; after an interruption, import again: nothing is added twice.
    Raises UsageError with the line that cannot be read, and EncoderMismatch.
    """
    with path.open(encoding="utf-8") as file:
        head = _parsed(file.readline(), path, 1)
        if head.get("format") != FORMAT or head.get("version") != VERSION:
            raise UsageError(
                f"{path} is not an exported gallery of version {VERSION}.",
                hint="Write one with `sightline faces export`.",
            )
        name = gallery or str(head["gallery"])
        added = 0
        rows = _rows(file, path)
        for (_, expires), group in itertools.groupby(rows, key=lambda row: (row[0].person, row[1])):
            entries = [entry for entry, _ in group]
            added += store.enrol(name, entries, encoder=head["encoder"], expires=expires)
    return name, added


def _rows(file: Iterator[str], path: Path) -> Iterator[tuple[Entry, str]]:
    for number, line in enumerate(file, 2):
        row = _parsed(line, path, number)
        try:
            vector = np.frombuffer(base64.b64decode(row["encoding"]), "<f4")
            photo = None if row["photo"] is None else base64.b64decode(row["photo"])
            yield Entry(row["person"], vector, row["sha256"], row["quality"], photo), row["expires"]
        except (KeyError, TypeError, ValueError) as exc:
            raise UsageError(f"{path}, line {number} is not an entry of a gallery: {exc!r}") from exc


def _row(entry: Entry, expires: str) -> dict[str, Any]:
    return {
        "person": entry.person,
        "expires": expires,
        "encoding": base64.b64encode(entry.encoding.astype("<f4").tobytes()).decode(),
        "sha256": entry.photo_sha256,
        "quality": entry.quality,
        "photo": None if entry.photo is None else base64.b64encode(entry.photo).decode(),
    }


def _parsed(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise UsageError(f"{path}, line {number} is not a JSON object.")
    return row
