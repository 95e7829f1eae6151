"""The known people: the protocol of a store, its data, and the checks that all stores share.

A store holds galleries, a gallery holds persons, a person has encodings. To add a store, write one file with a class
that has the methods of `Archive`, and add a row to `stores.py` and one to `open_anew` in
tests/faces/galleries/test_stores.py, which checks that every store keeps the same promises.
"""

import datetime
import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from serving.contract.errors import EncoderMismatch, InvalidName, InvalidParameter, UnknownGallery, UnknownPerson
from serving.faces.face import ENCODING_SIZE, Encodings

DEFAULT_GALLERY = "default"
NAME_LENGTH = 100  # characters
GALLERY_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One encoding of a person.

    encoding: float32 (128,). photo_sha256: of the photo's file, hexadecimal; the same photo twice is one entry.
    quality: the measurements of the face by their names in Quality. photo: the file, or None if it is not kept.
    """

    person: str
    encoding: Encodings
    photo_sha256: str
    quality: dict[str, float] = field(default_factory=dict)
    photo: bytes | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """A person of a gallery.

    encodings: their number. expires: the day, ISO 8601, on which the person is forgotten; "" for never.
    """

    name: str
    encodings: int
    expires: str


@dataclass(frozen=True, slots=True)
class GalleryInfo:
    """A gallery and its size. encoder: `name@version` of the encoder that made its encodings."""

    name: str
    encoder: str
    people: int
    encodings: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A person near a face, and the distance of their nearest encoding."""

    name: str
    distance: float


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One change of the known people. at: ISO 8601, UTC. action: enrol, replace, forget, expire or drop.

    person: `audit_digest`, since a forgotten name must not stay here; "" for a whole gallery. count: encodings changed.
    """

    at: str
    action: str
    gallery: str
    person: str
    count: int


class Store(Protocol):
    """Persistent galleries. When a method returns, its change is on the disk; all processes see it at their next call.

    Every method may raise GalleryBusy, GalleryUnavailable, GalleryFull or GalleryCorrupt. A method with `encoder`
    raises EncoderMismatch if the gallery holds another encoder's vectors. Expired persons do not show.
    """

    def galleries(self) -> Sequence[GalleryInfo]:
        """List all galleries by name."""
        ...

    def drop(self, gallery: str) -> int:
        """Delete a gallery. Returns the number of its encodings. Raises UnknownGallery."""
        ...

    def enrol(
        self, gallery: str, entries: Sequence[Entry], *, encoder: str, replace: bool = False, expires: str | None = None
    ) -> int:
        """Add encodings, all or none, and make the gallery if it is new. Returns the number of new encodings.

        replace: first forget these persons' other encodings. expires: set the persons' day, "" for never; None keeps
        it as it is.
        """
        ...

    def forget(self, gallery: str, person: str) -> int:
        """Purge a person. Returns the number of their encodings. Raises UnknownGallery, UnknownPerson."""
        ...

    def people(self, gallery: str) -> Sequence[Person]:
        """List all persons by name. Raises UnknownGallery; the default gallery always exists."""
        ...

    def count(self, gallery: str) -> int:
        """Count the encodings. Raises UnknownGallery."""
        ...

    def nearest(self, gallery: str, encodings: Encodings, k: int, *, encoder: str) -> Sequence[Sequence[Candidate]]:
        """Find the k nearest persons of each encoding, nearest first, exactly. encodings: float32 (n, 128)."""
        ...

    def owner(self, gallery: str, photo_sha256: str) -> str | None:
        """Return the person that this photo is enrolled as, or None."""
        ...

    def audit(self) -> Sequence[AuditRecord]:
        """List all changes, oldest first."""
        ...

    def close(self) -> None:
        """Close files and connections."""
        ...


class Archive(Store, Protocol):
    """A store from which whole galleries can be read; FaceClient is a Store only."""

    def entries(self, gallery: str) -> Iterator[Entry]:
        """Yield all entries, person by person. Raises UnknownGallery."""
        ...


def audit_digest(gallery: str, person: str) -> str:
    """Return the audit's digest of a person: a given name can be checked against it, none can be read from it."""
    return hashlib.sha256(f"{gallery}\0{person}".encode()).hexdigest()[:32]


def check_person(name: str) -> str:
    """Return the name as it is stored: trimmed, in Unicode NFC. Raises InvalidName."""
    tidy = unicodedata.normalize("NFC", name).strip()
    problem = ""
    if not tidy:
        problem = "is empty"
    elif len(tidy) > NAME_LENGTH:
        problem = f"has {len(tidy)} characters; the limit is {NAME_LENGTH}"
    elif any(unicodedata.category(letter) in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp") for letter in tidy):
        problem = "holds control characters"
    elif "/" in tidy or "\\" in tidy or tidy in (".", ".."):
        problem = "is a path"
    if problem:
        raise InvalidName(f"The person's name {problem}", hint="Use a name such as 'Ada Lovelace'.")
    return tidy


def check_gallery(name: str) -> str:
    """Return the gallery's name. Raises InvalidName."""
    if not GALLERY_NAME.fullmatch(name):
        raise InvalidName(
            f"{name!r} is not a valid name of a gallery.",
            hint="Use up to 63 of a-z, 0-9, - and _; begin with a letter or digit.",
        )
    return name


def check_expiry(day: str) -> str:
    """Return the day in ISO 8601, or "" for never. Raises InvalidParameter."""
    try:
        return day and datetime.date.fromisoformat(day).isoformat()
    except ValueError as exc:
        raise InvalidParameter(f"expires is {day!r}; it must be a day such as 2027-12-31.") from exc


def check_encoder(gallery: str, theirs: str, ours: str) -> None:
    """Raise EncoderMismatch unless `theirs` (the gallery's encoder) is `ours`."""
    if theirs != ours:
        raise EncoderMismatch(
            f"The gallery {gallery!r} holds encodings of {theirs}, which those of {ours} cannot be compared with.",
            hint="Enrol the photos again into a new gallery, or use the encoder that the gallery was made with.",
        )


def unknown_gallery(gallery: str) -> UnknownGallery:
    """Return the error for a gallery that does not exist."""
    return UnknownGallery(f"There is no gallery {gallery!r}.", hint="Enrol somebody into it to make it.")


def unknown_person(gallery: str, person: str) -> UnknownPerson:
    """Return the error for a person who is not in the gallery."""
    return UnknownPerson(f"There is no {person!r} in the gallery {gallery!r}.", hint="See `sightline faces list`.")


def check_encodings(encodings: Encodings) -> Encodings:
    """Return contiguous float32 (n, 128). Raises ValueError for another shape and for numbers that are not finite."""
    checked = np.ascontiguousarray(encodings, np.float32)
    if checked.ndim != 2 or checked.shape[1] != ENCODING_SIZE or not np.isfinite(checked).all():
        raise ValueError(
            f"encodings have shape {checked.shape} or are not finite; expected finite (n, {ENCODING_SIZE})"
        )
    return checked


def entry_encodings(entries: Sequence[Entry]) -> Encodings:
    """Stack the entries' encodings, float32 (n, 128); n may be 0."""
    rows = [entry.encoding for entry in entries]
    return check_encodings(np.stack(rows) if rows else np.zeros((0, ENCODING_SIZE), np.float32))
