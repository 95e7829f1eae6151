"""`client.faces`: who is in a photo, whether two photos show the same person, and the known set."""

from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import httpx

from sightline.calls import Call, multipart
from sightline.pictures import Picture, to_upload

T = TypeVar("T")

PEOPLE = "/faces/people"


@dataclass(frozen=True, slots=True)
class Box:
    """Where a face is, in pixels of the photo as it is seen (EXIF honoured)."""

    top: int
    right: int
    bottom: int
    left: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A known person and how far the face is from theirs (Euclidean, of 128 numbers; 0.6 and less is a match)."""

    name: str
    distance: float


@dataclass(frozen=True, slots=True, repr=False)
class Face:
    """One face of a photo. name, distance: of the nearest person within the tolerance, None where nobody is."""

    box: Box
    name: str | None
    distance: float | None
    candidates: tuple[Candidate, ...]

    def __repr__(self) -> str:
        who = "unknown" if self.name is None else f"{self.name!r} at {self.distance:.3f}"
        return f"Face({who}, top={self.box.top}, left={self.box.left})"


@dataclass(frozen=True, slots=True)
class Identified:
    """Every face of a photo, the largest first; none is an empty tuple. known: how many encodings were searched."""

    faces: tuple[Face, ...]
    tolerance: float
    known: int
    request_id: str

    @property
    def names(self) -> tuple[str | None, ...]:
        """Who they are, None for a stranger."""
        return tuple(face.name for face in self.faces)


@dataclass(frozen=True, slots=True)
class FaceComparison:
    """Whether two photos show the same person: their distance, and the tolerance that it was held against."""

    same: bool
    distance: float
    tolerance: float
    request_id: str


@dataclass(frozen=True, slots=True)
class Person:
    """One of the known set. encodings: how many photos of theirs are enrolled."""

    name: str
    encodings: int


@dataclass(frozen=True, slots=True)
class EnrolledPhoto:
    """What became of one photo. stored: False also for one that was known before; reasons: why it was refused."""

    name: str
    accepted: bool
    stored: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A person and the verdict on each photo; at least one was accepted."""

    person: str
    photos: tuple[EnrolledPhoto, ...]
    request_id: str


def identify(photo: Picture, tolerance: float | None, gallery: str | None) -> Call[Identified]:
    """`POST /faces/identify`."""
    content, headers = multipart({"image": [to_upload(photo)]})
    params = _params(tolerance=tolerance, gallery=gallery)
    return Call("POST", "/faces/identify", _identified, params, content, headers)


def compare(a: Picture, b: Picture, tolerance: float | None) -> Call[FaceComparison]:
    """`POST /faces/compare`."""
    content, headers = multipart({"a": [to_upload(a)], "b": [to_upload(b, 1)]})
    return Call("POST", "/faces/compare", _compared, _params(tolerance=tolerance), content, headers)


def enrol(name: str, photos: Picture | Iterable[Picture], gallery: str | None) -> Call[Enrolment]:
    """`POST /faces/people/{name}`. Not repeatable: an answer that was lost may have enrolled."""
    uploads = [to_upload(photo, position) for position, photo in enumerate(_several(photos))]
    content, headers = multipart({"image": uploads})
    params = _params(gallery=gallery)
    return Call("POST", person_path(name), _enrolled, params, content, headers, repeatable=False)


def people(gallery: str | None) -> Call[list[Person]]:
    """`GET /faces/people`."""
    return Call("GET", PEOPLE, _people, _params(gallery=gallery))


def forget(name: str, gallery: str | None) -> Call[None]:
    """`DELETE /faces/people/{name}`. Not repeatable: the second time there is no such person."""
    return Call("DELETE", person_path(name), lambda _: None, _params(gallery=gallery), repeatable=False)


class Asks(Protocol):
    """Sends a call: what `Client` is to `Faces`."""

    def __call__(self, call: Call[T]) -> T: ...


class AsksAsync(Protocol):
    """Sends a call and is awaited: what `AsyncClient` is to `AsyncFaces`."""

    def __call__(self, call: Call[T]) -> Awaitable[T]: ...


class Faces:
    """`client.faces`. gallery: one of several known sets; the service's own default where None."""

    def __init__(self, ask: Asks) -> None:
        self._ask = ask

    def identify(self, photo: Picture, *, tolerance: float | None = None, gallery: str | None = None) -> Identified:
        """Who is in a photo. A photo without a face is an empty answer and no error."""
        return self._ask(identify(photo, tolerance, gallery))

    def compare(self, a: Picture, b: Picture, *, tolerance: float | None = None) -> FaceComparison:
        """Whether two photos show the same person. Raises NoFace, TooManyFaces."""
        return self._ask(compare(a, b, tolerance))

    def enrol(self, name: str, photos: Picture | Iterable[Picture], *, gallery: str | None = None) -> Enrolment:
        """Make a person known, from one or several photos. Raises the first refusal where all photos are refused."""
        return self._ask(enrol(name, photos, gallery))

    def people(self, *, gallery: str | None = None) -> list[Person]:
        """Who is known."""
        return self._ask(people(gallery))

    def forget(self, name: str, *, gallery: str | None = None) -> None:
        """Forget a person and every photo of theirs. Raises UnknownPerson."""
        self._ask(forget(name, gallery))


class AsyncFaces:
    """`Faces`, to be awaited."""

    def __init__(self, ask: AsksAsync) -> None:
        self._ask = ask

    async def identify(
        self, photo: Picture, *, tolerance: float | None = None, gallery: str | None = None
    ) -> Identified:
        """See `Faces.identify`."""
        return await self._ask(identify(photo, tolerance, gallery))

    async def compare(self, a: Picture, b: Picture, *, tolerance: float | None = None) -> FaceComparison:
        """See `Faces.compare`."""
        return await self._ask(compare(a, b, tolerance))

    async def enrol(self, name: str, photos: Picture | Iterable[Picture], *, gallery: str | None = None) -> Enrolment:
        """See `Faces.enrol`."""
        return await self._ask(enrol(name, photos, gallery))

    async def people(self, *, gallery: str | None = None) -> list[Person]:
        """See `Faces.people`."""
        return await self._ask(people(gallery))

    async def forget(self, name: str, *, gallery: str | None = None) -> None:
        """See `Faces.forget`."""
        await self._ask(forget(name, gallery))


def person_path(name: str) -> str:
    return f"{PEOPLE}/{quote(name, safe='')}"


def _params(**given: Any) -> Mapping[str, str]:
    return {name: str(value) for name, value in given.items() if value is not None}


def _several(photos: Any) -> Iterable[Picture]:
    """One photo as one of several. Arrays, bytes and files can be iterated over, and are one photo."""
    return photos if isinstance(photos, list | tuple | set | frozenset) or _is_iterator(photos) else [photos]


def _is_iterator(value: Any) -> bool:
    return hasattr(value, "__next__") and not hasattr(value, "read")


def _identified(response: httpx.Response) -> Identified:
    answer = response.json()
    return Identified(
        tuple(_face(face) for face in answer["faces"]), answer["tolerance"], answer["known"], _request_id(response)
    )


def _face(face: Mapping[str, Any]) -> Face:
    box = Box(**{side: int(face["box"][side]) for side in ("top", "right", "bottom", "left")})
    candidates = tuple(Candidate(one["name"], one["distance"]) for one in face.get("candidates") or ())
    return Face(box, face["name"], face.get("distance"), candidates)


def _compared(response: httpx.Response) -> FaceComparison:
    answer = response.json()
    distance, tolerance = answer["distance"], answer["tolerance"]
    return FaceComparison(bool(answer.get("same", distance <= tolerance)), distance, tolerance, _request_id(response))


def _people(response: httpx.Response) -> list[Person]:
    return [Person(row["name"], int(row.get("encodings", 0))) for row in response.json()["people"]]


def _enrolled(response: httpx.Response) -> Enrolment:
    answer = response.json()
    return Enrolment(answer["person"], tuple(_photo(row) for row in answer["photos"]), _request_id(response))


def _photo(row: Mapping[str, Any]) -> EnrolledPhoto:
    refusals = [reason["text"] for reason in row.get("reasons", ())]
    if "error" in row:
        refusals.append(row["error"]["detail"])
    return EnrolledPhoto(row["name"], row["accepted"], bool(row.get("stored")), tuple(refusals))


def _request_id(response: httpx.Response) -> str:
    return str(response.headers.get("X-Request-ID", ""))
