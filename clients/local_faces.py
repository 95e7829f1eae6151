"""`LocalFaces`: the galleries themselves, and face processes on this machine, for `sightline faces`."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import click
from sightline.faces import (
    Box,
    Candidate,
    CompareArguments,
    EnrolArguments,
    EnrolledPhoto,
    Face,
    FaceComparison,
    Gallery,
    Identified,
    IdentifyArguments,
    Person,
    Quality,
    Refusal,
)

from clients.face_answers import Row, enrolled_row, failed_row, identified_row, unusable_row
from serving.contract.errors import RequestTooLarge, SightlineError, UnreadableFile
from serving.contract.image_limits import ImageLimits
from serving.faces.annotation import annotate
from serving.faces.enrolment import PHOTO_ERRORS, FolderRow, Standards, Verdict, enrol_folder
from serving.faces.face import Reason
from serving.faces.galleries.gallery import DEFAULT_GALLERY, Archive
from serving.faces.galleries.stores import missing_file, open_for_reading, open_store
from serving.faces.recognition import CANDIDATES, Faces, Identification, Match, compare, identify
from serving.faces.service.pool import FacePool, face_pool
from serving.faces.settings import FaceSettings, read_face_settings

UNUSABLE = (*PHOTO_ERRORS, RequestTooLarge)


class LocalFaces:
    """The store itself, and face processes that encode with dlib: the numbers are those of the service."""

    def __init__(self, settings: FaceSettings, store: Archive) -> None:
        self._settings = settings
        self._store = store

    @cached_property
    def _pool(self) -> FacePool:
        return face_pool(self._settings, ImageLimits())

    @cached_property
    def _faces(self) -> Faces:
        return Faces.from_settings(self._settings, self._pool, self._pool, self._store)

    def enrol(self, files: Sequence[tuple[Path, str]], arguments: EnrolArguments) -> Iterator[Row]:
        rows = enrol_folder(
            self._faces,
            files,
            gallery=arguments.get("gallery") or DEFAULT_GALLERY,
            standards=Standards(allowed=frozenset(arguments.get("allow", ()))),
            expires=arguments.get("expires"),
            keep_photos=arguments.get("keep_photos", False),
            replace=arguments.get("replace", False),
            model=arguments.get("model") or "hog",
        )
        return map(_enrolled, rows)

    def identify(self, file: Path, arguments: IdentifyArguments, *, framed: bool) -> tuple[Row, bytes | None]:
        try:
            photo = _read(file)
            found = identify(
                self._faces,
                photo,
                gallery=arguments.get("gallery") or DEFAULT_GALLERY,
                tolerance=arguments.get("tolerance"),
                candidates=arguments.get("top") or CANDIDATES,
                model=arguments.get("model") or "hog",
            )
        except UNUSABLE as exc:
            return unusable_row(file, exc), None
        picture = annotate(photo, found, ImageLimits()) if framed else None
        return identified_row(file, _identified(found)), picture

    def compare(self, one: Path, other: Path, arguments: CompareArguments) -> FaceComparison:
        found = compare(
            self._faces,
            _read(one),
            _read(other),
            tolerance=arguments.get("tolerance"),
            model=arguments.get("model") or "hog",
        )
        return FaceComparison(found.is_same, found.distance, found.tolerance, "")

    def people(self, gallery: str) -> Sequence[Person]:
        return [Person(each.name, each.encodings, each.expires or None) for each in self._store.people(gallery)]

    def galleries(self) -> Sequence[Gallery]:
        return [Gallery(row.name, row.people, row.encodings, row.encoder) for row in self._store.galleries()]

    def forget(self, gallery: str, person: str) -> int:
        return self._store.forget(gallery, person)

    def close(self) -> None:
        if "_pool" in vars(self):
            self._pool.close()
        self._store.close()


def open_local(url: str | None, *, to_enrol: bool) -> LocalFaces:
    """Open the galleries at an address, or where SIGHTLINE_FACES_URL says. Raises the errors of the store."""
    return LocalFaces(face_settings(url), open_archive(url, to_enrol=to_enrol))


def open_archive(url: str | None, *, to_enrol: bool) -> Archive:
    """Open the store. A command that does not enrol makes no file: it says on stderr that nobody is known there."""
    settings = face_settings(url)
    if to_enrol:
        return open_store(settings.url, settings.key)
    missing = missing_file(settings.url)
    if missing is not None:
        click.echo(f"There is no gallery at {missing}: nobody is known there.", err=True)
        click.echo("  Enrol somebody, or name another store with --store or SIGHTLINE_FACES_URL.", err=True)
    return open_for_reading(settings.url, settings.key)


def face_settings(url: str | None) -> FaceSettings:
    """Read the settings of faces from the environment, with another address of the store if one is given."""
    settings = read_face_settings(os.environ)
    return settings.model_copy(update={"url": url}) if url else settings


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as exc:
        raise UnreadableFile(f"{str(file)!r} cannot be read: {exc.strerror}.") from exc


def _enrolled(row: FolderRow) -> Row:
    if isinstance(row.outcome, SightlineError):
        return failed_row(row.path, row.person, row.outcome)
    return enrolled_row(row.path, row.person, _photo(row.path, row.outcome))


def _photo(path: Path, verdict: Verdict | None) -> EnrolledPhoto:
    """The verdict as the service tells it; None is a photo that was enrolled before."""
    if verdict is None:
        return EnrolledPhoto(path.name, accepted=True, stored=False)
    return EnrolledPhoto(path.name, verdict.is_accepted, verdict.stored, _refusals(verdict.reasons))


def _refusals(reasons: Iterable[Reason]) -> tuple[Refusal, ...]:
    return tuple(Refusal(each.code, each.text, each.measured, each.limit) for each in reasons)


def _identified(found: Identification) -> Identified:
    faces = tuple(_face(match) for match in found.matches)
    return Identified(faces, found.tolerance, found.known, "", tuple(found.found.tried))


def _face(match: Match) -> Face:
    box = match.face.box
    candidates = tuple(Candidate(each.name, each.distance) for each in match.candidates)
    return Face(
        Box(box.top, box.right, box.bottom, box.left),
        match.name,
        match.distance,
        candidates,
        Quality(**asdict(match.face.quality)),
        _refusals(match.reasons),
    )
