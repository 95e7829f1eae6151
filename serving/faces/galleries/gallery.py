"""The known set: who is in it, and who is nearest.

A store holds galleries; a gallery holds persons; a person has encodings. To add a store, write one file with a class
that has the methods of `Store`, and a row in `stores.py`; tests/faces/galleries/test_stores.py then holds it to the
same promises as the others.
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
    quality: the face's measurements. photo: the file itself where it is kept, or None.
    """

    person: str
    encoding: Encodings
    photo_sha256: str
    quality: dict[str, float] = field(default_factory=dict)
    photo: bytes | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """A person of a gallery. encodings: how many. expires: the day (ISO 8601) from which they are forgotten, or ""."""

    name: str
    encodings: int
    expires: str


@dataclass(frozen=True, slots=True)
class GalleryInfo:
    """A gallery. encoder: whose vectors it holds, `name@version`."""

    name: str
    encoder: str
    people: int
    encodings: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A person and the distance of their nearest encoding."""

    name: str
    distance: float


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """What was done to whom. at: ISO 8601, UTC. action: enrol, replace, forget, expire or drop. count: encodings.

    person: `audit_digest`, for a name that was forgotten must not stand here; "" for a whole gallery.
    """

    at: str
    action: str
    gallery: str
    person: str
    count: int


class Store(Protocol):
    """Galleries that last. What a method returned has reached the disk, and every process sees it at its next call.

    Every method may raise GalleryBusy, GalleryUnavailable, GalleryFull or GalleryCorrupt; one that is given an encoder
    raises EncoderMismatch where the gallery holds another's vectors. Persons who have expired are not there.
    """

    def galleries(self) -> Sequence[GalleryInfo]:
        """All galleries, by name."""
        ...

    def drop(self, gallery: str) -> int:
        """Delete a gallery; returns how many encodings it had. Raises UnknownGallery."""
        ...

    def enrol(
        self, gallery: str, entries: Sequence[Entry], *, encoder: str, replace: bool = False, expires: str | None = None
    ) -> int:
        """Add encodings, all or none; returns how many were new. The gallery is made where there is none.

        replace: forget first what is known of these persons. expires: sets the persons' day, "" for never; None
        leaves it.
        """
        ...

    def forget(self, gallery: str, person: str) -> int:
        """Purge a person; returns how many encodings they had. Raises UnknownGallery, UnknownPerson."""
        ...

    def people(self, gallery: str) -> Sequence[Person]:
        """Everybody, by name. Raises UnknownGallery; the default gallery is there from the start."""
        ...

    def count(self, gallery: str) -> int:
        """How many encodings there are. Raises UnknownGallery."""
        ...

    def nearest(self, gallery: str, encodings: Encodings, k: int, *, encoder: str) -> Sequence[Sequence[Candidate]]:
        """For each encoding the k nearest persons, nearest first. encodings: float32 (n, 128). Exact."""
        ...

    def owner(self, gallery: str, photo_sha256: str) -> str | None:
        """The person whom this photo is enrolled as, or None."""
        ...

    def audit(self) -> Sequence[AuditRecord]:
        """What was enrolled, forgotten, expired and dropped, oldest first."""
        ...

    def close(self) -> None:
        """Give files and connections back."""
        ...


class Archive(Store, Protocol):
    """A store that is at hand, so that whole galleries can be read."""

    def entries(self, gallery: str) -> Iterator[Entry]:
        """Everything, by person. Raises UnknownGallery."""
        ...


def audit_digest(gallery: str, person: str) -> str:
    """What the audit calls a person: it proves that a given name was forgotten, and does not tell the name."""
    return hashlib.sha256(f"{gallery}\0{person}".encode()).hexdigest()[:32]


def check_person(name: str) -> str:
    """The name as it is stored (Unicode NFC, trimmed). Raises InvalidName for what is no name."""
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
        raise InvalidName(f"the person's name {problem}", hint="Use a name such as 'Ada Lovelace'.")
    return tidy


def check_gallery(name: str) -> str:
    """The gallery's name. Raises InvalidName."""
    if not GALLERY_NAME.fullmatch(name):
        raise InvalidName(
            f"{name!r} is no name of a gallery", hint="Use up to 63 of a-z, 0-9, - and _, with a letter or digit first."
        )
    return name


def check_expiry(day: str) -> str:
    """A day in ISO 8601, or "" for never. Raises InvalidParameter."""
    try:
        return day and datetime.date.fromisoformat(day).isoformat()
    except ValueError as exc:
        raise InvalidParameter(f"expires is {day!r}; a day such as 2027-12-31 is wanted") from exc


def check_encoder(gallery: str, theirs: str, ours: str) -> None:
    """Raises EncoderMismatch unless the gallery's vectors and ours can be compared."""
    if theirs != ours:
        raise EncoderMismatch(
            f"the gallery {gallery!r} holds vectors of {theirs}; this encoder is {ours}: they cannot be compared",
            hint="Enrol the photos again into a new gallery, or run the encoder that the gallery was made with.",
        )


def unknown_gallery(gallery: str) -> UnknownGallery:
    """The error for a gallery that is not there."""
    return UnknownGallery(f"there is no gallery {gallery!r}", hint="Enrolling somebody into it makes it.")


def unknown_person(gallery: str, person: str) -> UnknownPerson:
    """The error for a person who is not there."""
    return UnknownPerson(f"there is no {person!r} in the gallery {gallery!r}", hint="See `sightline faces list`.")


def check_encodings(encodings: Encodings) -> Encodings:
    """Contiguous float32 (n, 128), finite. Raises ValueError."""
    checked = np.ascontiguousarray(encodings, np.float32)
    if checked.ndim != 2 or checked.shape[1] != ENCODING_SIZE or not np.isfinite(checked).all():
        raise ValueError(f"encodings of shape {checked.shape}; finite (n, {ENCODING_SIZE}) are wanted")
    return checked


def entry_encodings(entries: Sequence[Entry]) -> Encodings:
    """All entries' encodings as float32 (n, 128); n may be 0."""
    rows = [entry.encoding for entry in entries]
    return check_encodings(np.stack(rows) if rows else np.zeros((0, ENCODING_SIZE), np.float32))
