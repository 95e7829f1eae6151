"""Who answers `sightline faces`: the gallery itself, or a running service. Both answer in the same rows, as JSON is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import httpx
from sightline.calls import Call, multipart
from sightline.client import Client
from sightline.faces import PEOPLE, person_path
from sightline.pictures import to_upload

from clients.commands import printable
from serving.contract.errors import RequestTooLarge, SightlineError
from serving.contract.image_limits import ImageLimits
from serving.faces.annotation import annotate
from serving.faces.enrolment import PHOTO_ERRORS, FolderRow, Standards, Verdict, enrol_folder
from serving.faces.face import DetectorModel
from serving.faces.galleries.gallery import Archive
from serving.faces.recognition import Faces, compare, identify
from serving.faces.service.pool import FacePool, face_pool
from serving.faces.settings import FaceSettings

Row = dict[str, Any]
UNUSABLE = (*PHOTO_ERRORS, RequestTooLarge)


@dataclass(frozen=True, slots=True)
class Enrolling:
    """How a folder is enrolled. anew: forget first what is known of each person. allow: reasons that are waived."""

    gallery: str
    anew: bool = False
    expires: str | None = None
    allow: Sequence[str] = ()
    keep_photos: bool = False
    model: DetectorModel = "hog"


@dataclass(frozen=True, slots=True)
class Identifying:
    """How a photo is looked at. tolerance: None for the gallery's own."""

    gallery: str
    tolerance: float | None = None
    top: int = 5
    model: DetectorModel = "hog"


class Answers(Protocol):
    """Somebody who knows people. Every method may raise what the store, the face processes or the service raise."""

    def enrol(self, files: Sequence[tuple[Path, str]], how: Enrolling) -> Iterator[Row]:
        """{file, person, status: enrolled|already|refused|failed, why, code, reasons} of each, in turn."""
        ...

    def identify(self, file: Path, how: Identifying, *, framed: bool) -> tuple[Row, bytes | None]:
        """{file, faces, tolerance, known, tried}, or {file, error, code}; and the framed picture where it is wanted."""
        ...

    def compare(self, one: Path, other: Path, tolerance: float | None, model: DetectorModel) -> Row:
        """{same, distance, tolerance}."""
        ...

    def people(self, gallery: str) -> Sequence[Row]:
        """{name, encodings, expires} of each."""
        ...

    def galleries(self) -> Sequence[Row]:
        """{name, encoder, people, encodings} of each."""
        ...

    def forget(self, gallery: str, person: str) -> int:
        """How many encodings they had."""
        ...

    def close(self) -> None:
        """Give back what was opened."""
        ...


class AnswersHere:
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

    def enrol(self, files: Sequence[tuple[Path, str]], how: Enrolling) -> Iterator[Row]:
        rows = enrol_folder(
            self._faces,
            files,
            gallery=how.gallery,
            standards=Standards(allowed=frozenset(how.allow)),
            expires=how.expires,
            keep_photos=how.keep_photos,
            replace=how.anew,
            model=how.model,
        )
        return map(_enrolled, rows)

    def identify(self, file: Path, how: Identifying, *, framed: bool) -> tuple[Row, bytes | None]:
        try:
            photo = to_upload(file).data
            answer = identify(
                self._faces,
                photo,
                gallery=how.gallery,
                tolerance=how.tolerance,
                candidates=how.top,
                model=how.model,
            )
        except UNUSABLE as exc:
            return _unusable(file, exc), None
        faces = [
            {
                "box": asdict(match.face.box),
                "name": match.name,
                "distance": match.distance,
                "candidates": [asdict(candidate) for candidate in match.candidates],
                "quality": asdict(match.face.quality),
                "reasons": [asdict(reason) for reason in match.reasons],
            }
            for match in answer.matches
        ]
        body = {"faces": faces, "tolerance": answer.tolerance, "known": answer.known, "tried": answer.found.tried}
        return {"file": printable(str(file))} | body, annotate(photo, answer, ImageLimits()) if framed else None

    def compare(self, one: Path, other: Path, tolerance: float | None, model: DetectorModel) -> Row:
        answer = compare(self._faces, to_upload(one).data, to_upload(other).data, tolerance=tolerance, model=model)
        return {"same": answer.is_same, "distance": answer.distance, "tolerance": answer.tolerance}

    def people(self, gallery: str) -> Sequence[Row]:
        return [asdict(person) for person in self._store.people(gallery)]

    def galleries(self) -> Sequence[Row]:
        return [asdict(gallery) for gallery in self._store.galleries()]

    def forget(self, gallery: str, person: str) -> int:
        return self._store.forget(gallery, person)

    def close(self) -> None:
        if "_pool" in vars(self):
            self._pool.close()
        self._store.close()


def _enrolled(row: FolderRow) -> Row:
    verdict = row.outcome if isinstance(row.outcome, Verdict) else None
    if isinstance(row.outcome, SightlineError):
        return _failed(row.path, row.person, row.outcome)
    stored = verdict is not None and verdict.stored
    return _judged(row.path, row.person, stored, [asdict(reason) for reason in verdict.reasons] if verdict else [])


def _judged(path: Path, person: str, stored: bool, reasons: Sequence[Row]) -> Row:
    status = "refused" if reasons else "enrolled" if stored else "already"
    why = " ".join(f"{reason['text']}{_numbers(reason['measured'], reason['limit'])}" for reason in reasons)
    head = {"file": printable(str(path)), "person": person, "status": status}
    return {**head, "why": why, "code": None, "reasons": list(reasons)}


def _failed(path: Path, person: str, error: SightlineError) -> Row:
    head = {"file": printable(str(path)), "person": person, "status": "failed"}
    why = f"{error.detail.removesuffix('.')}. {error.hint}".rstrip()
    return {**head, "why": why, "code": error.code, "reasons": []}


def _numbers(measured: float | None, limit: float | None) -> str:
    return "" if measured is None or limit is None else f" ({measured:.3g}; limit {limit:g})"


def _unusable(file: Path, error: SightlineError) -> Row:
    return {"file": printable(str(file)), "error": error.detail, "code": error.code, "hint": error.hint}


class AnswersServed:
    """A running service."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def enrol(self, files: Sequence[tuple[Path, str]], how: Enrolling) -> Iterator[Row]:
        replaced: set[str] = set()
        for path, person in files:
            try:
                row = self._enrol(path, person, how, anew=how.anew and person not in replaced)
            except UNUSABLE as exc:
                row = _failed(path, person, exc)
            if row["status"] in ("enrolled", "already"):
                replaced.add(person)
            yield row

    def _enrol(self, path: Path, person: str, how: Enrolling, *, anew: bool) -> Row:
        params = {
            "gallery": how.gallery,
            "replace": "true" if anew else None,
            "expires": how.expires,
            "allow": ",".join(how.allow) or None,
            "keep_photos": "true" if how.keep_photos else None,
            "model": how.model,
        }
        content, headers = multipart({"image": [to_upload(path)]})
        call = _Judging(
            "POST",
            person_path(person),
            lambda response: response.json()["photos"][0],
            _given(params),
            content,
            headers,
            # enrolling is adding, and the same photo twice is one: only replacing is not to be done again
            repeatable=not anew,
        )
        entry = self._client.ask(call)
        if "error" in entry:
            error = entry["error"]
            return {
                **_failed(path, person, SightlineError(error["detail"], hint=error["hint"])),
                "code": error["code"],
            }
        return _judged(path, person, entry["stored"], entry["reasons"])

    def identify(self, file: Path, how: Identifying, *, framed: bool) -> tuple[Row, bytes | None]:
        params = _given(
            {"gallery": how.gallery, "tolerance": how.tolerance, "top": how.top, "model": how.model},
        )
        try:
            content, headers = multipart({"image": [to_upload(file)]})
            call = Call("POST", "/faces/identify", _json, params, content, headers)
            answer = self._client.ask(call)
            picture = None
            if framed:
                params = {**params, "annotate": "png"}
                picture = self._client.ask(
                    Call("POST", "/faces/identify", lambda response: response.content, params, content, headers)
                )
        except UNUSABLE as exc:
            return _unusable(file, exc), None
        faces = [{name: face[name] for name in ("box", "name", "distance", "candidates")} for face in answer["faces"]]
        told = {name: answer[name] for name in ("tolerance", "known", "tried")}
        return {"file": printable(str(file)), "faces": faces, **told}, picture

    def compare(self, one: Path, other: Path, tolerance: float | None, model: DetectorModel) -> Row:
        content, headers = multipart({"a": [to_upload(one)], "b": [to_upload(other, 1)]})
        params = _given({"tolerance": tolerance, "model": model})
        answer = self._client.ask(Call("POST", "/faces/compare", _json, params, content, headers))
        return {name: answer[name] for name in ("same", "distance", "tolerance")}

    def people(self, gallery: str) -> Sequence[Row]:
        answer = self._client.ask(Call("GET", PEOPLE, _json, {"gallery": gallery}))
        return [{**row, "expires": row["expires"] or ""} for row in answer["people"]]

    def galleries(self) -> Sequence[Row]:
        rows: Sequence[Row] = self._client.ask(Call("GET", "/faces/galleries", _json))["galleries"]
        return rows

    def forget(self, gallery: str, person: str) -> int:
        call = Call("DELETE", person_path(person), _json, {"gallery": gallery}, repeatable=False)
        return int(self._client.ask(call)["forgotten"])

    def close(self) -> None:
        self._client.close()


class _Judging(Call[Row]):
    """A photo that was refused is an answer too: its reasons are beside the problem."""

    def result(self, response: httpx.Response) -> Row:
        with_photos = response.status_code == httpx.codes.UNPROCESSABLE_ENTITY and "photos" in response.json()
        return self.read(response) if with_photos else Call.result(self, response)


def _json(response: httpx.Response) -> Row:
    body: Row = response.json()
    return body


def _given(params: Mapping[str, Any]) -> Mapping[str, str]:
    return {name: str(value) for name, value in params.items() if value is not None}
