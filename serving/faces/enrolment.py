"""Enrolment: judge whether a photo is good enough to know a person by, say why not, and store it."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from serving.contract.errors import (
    BadImage,
    DeadlineExceeded,
    FaceProcessDied,
    FaceRefused,
    InvalidName,
    NoFace,
    SightlineError,
    TooManyFaces,
    UnreadableFile,
    UnusableFace,
)
from serving.faces.face import Detection, DetectorModel, Encodings, Quality, Reason, too_poor
from serving.faces.galleries.gallery import DEFAULT_GALLERY, Entry, check_person
from serving.faces.recognition import Faces

# Errors of one photo. Enrolling a folder goes on after them; a photo that ends every face process is one of these.
PHOTO_ERRORS = (BadImage, InvalidName, UnreadableFile, FaceProcessDied, DeadlineExceeded)
NEVER_ALLOWED = ("no_face", "several_faces")  # without exactly one face there is nothing to store


@dataclass(frozen=True, slots=True)
class Standards:
    """Limits that a photo must keep to.

    side: pixels of the face's box. sharpness, brightness, turn: see Quality.
    allowed: codes of reasons to waive, say for twins; those of NEVER_ALLOWED cannot be waived.
    Source: the portrait of Obama in face_recognition's examples, made worse step by step. At each limit its encoding
    has moved by 0.2 to 0.35, half of what tells two people apart.
    """

    side: int = 60
    sharpness: float = 0.08
    darkest: float = 30.0
    brightest: float = 230.0
    turn: float = 0.35
    allowed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of one photo. stored is False, with no reasons, for a photo that was enrolled before."""

    person: str
    found: Detection
    reasons: tuple[Reason, ...] = field(default=())
    stored: bool = False

    @property
    def is_accepted(self) -> bool:
        return not self.reasons


def enrol(
    faces: Faces,
    person: str,
    photo: bytes,
    *,
    gallery: str = DEFAULT_GALLERY,
    standards: Standards | None = None,
    expires: str | None = None,
    keep_photo: bool = False,
    replace: bool = False,
    model: DetectorModel = "hog",
) -> Verdict:
    """Judge a photo and store its encoding if it is accepted; when this returns, it is on the disk.

    expires: see `Store.enrol`. keep_photo: store the file too. replace: if the photo is accepted, first forget the
    person's other encodings. A refused photo is a Verdict with reasons, not an error.
    Raises InvalidName, and what the finder, the encoder and the store raise.
    """
    name = check_person(person)
    limits = standards or Standards()
    found = faces.finder.find(photo, model)
    encodings = faces.encoder.encode(found.chips)
    waived = limits.allowed - set(NEVER_ALLOWED)
    judged = _reasons(faces, name, found, encodings, gallery=gallery, limits=limits)
    reasons = tuple(reason for reason in judged if reason.code not in waived)
    if reasons:
        return Verdict(name, found, reasons)
    quality = found.faces[0].quality
    entry = Entry(name, encodings[0], found.sha256, _numbers(quality), photo if keep_photo else None)
    added = faces.store.enrol(gallery, [entry], encoder=str(faces.encoder.name), replace=replace, expires=expires)
    return Verdict(name, found, stored=added > 0)


def _reasons(
    faces: Faces, person: str, found: Detection, encodings: Encodings, *, gallery: str, limits: Standards
) -> Iterator[Reason]:
    if not found.faces:
        yield Reason("no_face", "There is no face in this photo.")
        return
    if len(found.faces) > 1:
        text = f"There are {len(found.faces)} faces in this photo: send one that shows this person alone."
        yield Reason("several_faces", text, len(found.faces), 1)
        return
    yield from _poor(found.faces[0].quality, limits)
    yield from _confused(faces, person, found, encodings, gallery=gallery)


def _poor(quality: Quality, limits: Standards) -> Iterator[Reason]:
    yield from too_poor(quality, side=limits.side, sharpness=limits.sharpness)
    if quality.brightness < limits.darkest:
        yield Reason("dark", "The face is too dark: turn to the light.", quality.brightness, limits.darkest)
    if quality.brightness > limits.brightest:
        yield Reason("bright", "The face is too bright: use less light.", quality.brightness, limits.brightest)
    if quality.turn > limits.turn:
        yield Reason("turned_away", "The face is turned away: look into the camera.", quality.turn, limits.turn)


def _confused(faces: Faces, person: str, found: Detection, encodings: Encodings, *, gallery: str) -> Iterator[Reason]:
    if not any(info.name == gallery for info in faces.store.galleries()):
        return
    owner = faces.store.owner(gallery, found.sha256)
    if owner not in (None, person):
        yield Reason("duplicate", f"This photo is already enrolled as {owner!r}.")
        return
    nearest = faces.store.nearest(gallery, encodings[:1], 2, encoder=str(faces.encoder.name))[0]
    other = next((candidate for candidate in nearest if candidate.name != person), None)
    if other is not None and other.distance <= faces.tolerance:
        text = f"The face looks like {other.name!r}, who is already enrolled."
        yield Reason("looks_like_someone_else", text, other.distance, faces.tolerance)


def _numbers(quality: Quality) -> dict[str, float]:
    numbers = {name: float(getattr(quality, name)) for name in ("side", "sharpness", "brightness", "turn")}
    return {name: round(number, 4) for name, number in numbers.items() if np.isfinite(number)}


@dataclass(frozen=True, slots=True)
class FolderRow:
    """The result for one file of a folder.

    outcome: a Verdict; the error of a file that cannot be used; None for a photo that was enrolled before.
    """

    path: Path
    person: str
    outcome: Verdict | SightlineError | None


def enrol_folder(
    faces: Faces,
    files: Sequence[tuple[Path, str]],
    *,
    gallery: str = DEFAULT_GALLERY,
    standards: Standards | None = None,
    expires: str | None = None,
    keep_photos: bool = False,
    replace: bool = False,
    model: DetectorModel = "hog",
) -> Iterator[FolderRow]:
    """Enrol photos one by one, past those that are refused or cannot be read. After an interruption, call it again.

    files: from `named_files`. replace: a person's first accepted photo replaces their earlier encodings.
    Raises what concerns every photo: Unavailable (but FaceProcessDied), GalleryError, Conflict, OperatorError.
    """
    replaced: set[str] = set()
    for path, person in files:
        try:
            photo, name = _read(path), check_person(person)
            if not replace and _is_enrolled(faces, gallery, photo, name):
                yield FolderRow(path, person, None)
                continue
            verdict = enrol(
                faces,
                name,
                photo,
                gallery=gallery,
                standards=standards,
                expires=expires,
                keep_photo=keep_photos,
                replace=replace and name not in replaced,
                model=model,
            )
        except PHOTO_ERRORS as exc:
            yield FolderRow(path, person, exc)
            continue
        if verdict.is_accepted:
            replaced.add(name)
        yield FolderRow(path, person, verdict)


def refusal(verdict: Verdict) -> UnusableFace:
    """Return the error for a refused photo: a sentence for each reason."""
    first = verdict.reasons[0].code
    kind = {"no_face": NoFace, "several_faces": TooManyFaces}.get(first, FaceRefused)
    return kind(
        " ".join(reason.text for reason in verdict.reasons),
        hint=f"Send another photo of this person. Tried: {', '.join(verdict.found.tried)}.",
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise UnreadableFile(f"{path} cannot be read: {exc.strerror}.") from exc


def _is_enrolled(faces: Faces, gallery: str, photo: bytes, person: str) -> bool:
    if not any(info.name == gallery for info in faces.store.galleries()):
        return False
    return faces.store.owner(gallery, hashlib.sha256(photo).hexdigest()) == person
