"""`client.faces`: who is in a photo, whether two photos show one person, and the people who are known."""

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, Protocol, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import httpx

from sightline.calls import Call, multipart, query
from sightline.errors import BadImage, SightlineError, error_from_problem, error_from_response, json_object
from sightline.pictures import Picture, to_upload

T = TypeVar("T")
Detector = Literal["hog", "cnn"]

PEOPLE = "/faces/people"


@dataclass(frozen=True, slots=True)
class Box:
    """A face's rectangle, in pixels of the upright photo (EXIF honoured)."""

    top: int
    right: int
    bottom: int
    left: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A known person and the distance of the face from theirs (Euclidean, of 128 numbers; 0.6 and less is a match)."""

    name: str
    distance: float


@dataclass(frozen=True, slots=True)
class Quality:
    """The measurements of a face; docs/faces.md explains them. side: pixels of the box; brightness: 0-255."""

    side: int
    sharpness: float
    brightness: float
    turn: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason that a photo was refused, or a face is not named.

    code: machine-readable; text: for the person with the camera.
    measured, limit: the number and the threshold that it missed; None where there is none.
    """

    code: str
    text: str
    measured: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Face:
    """One face of a photo. name: of the nearest person, None where nobody is within the tolerance.

    distance: of the nearest person, whatever the tolerance; None where nobody is known. quality: None where the service
    does not tell it. reasons: why the face is too poor to be named.
    """

    box: Box
    name: str | None
    distance: float | None
    candidates: tuple[Candidate, ...]
    quality: Quality | None = None
    reasons: tuple[Refusal, ...] = ()

    def __repr__(self) -> str:
        who = "unknown" if self.name is None else f"{self.name!r} at {self.distance:.3f}"
        return f"Face({who}, top={self.box.top}, left={self.box.left})"


@dataclass(frozen=True, slots=True)
class Identified:
    """Every face of a photo, the largest first; none is an empty tuple.

    known: how many encodings were searched. tried: the ways in which faces were looked for.
    """

    faces: tuple[Face, ...]
    tolerance: float
    known: int
    request_id: str
    tried: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str | None, ...]:
        """The names of the faces, None for a stranger."""
        return tuple(face.name for face in self.faces)


@dataclass(frozen=True, slots=True)
class FaceComparison:
    """Two photos by the largest face of each. same: their distance is within the tolerance."""

    same: bool
    distance: float
    tolerance: float
    request_id: str


@dataclass(frozen=True, slots=True)
class Person:
    """A known person. encodings: how many of their photos are enrolled. expires: the day (ISO 8601) from which they
    are forgotten; None: never."""

    name: str
    encodings: int
    expires: str | None = None


@dataclass(frozen=True, slots=True)
class Gallery:
    """A set of known people. encoder: the one that its encodings are of, `name@version`."""

    name: str
    people: int
    encodings: int
    encoder: str


@dataclass(frozen=True, slots=True)
class EnrolledPhoto:
    """The verdict on one photo. stored: False also for one that was enrolled before.

    reasons: why it was refused. error: why it could not be judged, None for one that was.
    """

    name: str
    accepted: bool
    stored: bool
    reasons: tuple[Refusal, ...] = ()
    error: SightlineError | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A person and the verdict on each photo; at least one was accepted."""

    person: str
    photos: tuple[EnrolledPhoto, ...]
    request_id: str


class PhotosRefused(BadImage):
    """Nobody was enrolled: every photo was refused. photos: the verdict on each."""

    code = "face_refused"
    photos: tuple[EnrolledPhoto, ...] = ()


class IdentifyArguments(TypedDict):
    """The keyword arguments of `identify` and `annotate`; see `Faces.identify`."""

    gallery: NotRequired[str | None]
    tolerance: NotRequired[float | None]
    top: NotRequired[int | None]
    model: NotRequired[Detector | None]


class CompareArguments(TypedDict):
    """The keyword arguments of `compare`; see `Faces.compare`."""

    tolerance: NotRequired[float | None]
    model: NotRequired[Detector | None]


class EnrolArguments(TypedDict):
    """The keyword arguments of `enrol`; see `Faces.enrol`."""

    gallery: NotRequired[str | None]
    expires: NotRequired[str | None]
    replace: NotRequired[bool]
    keep_photos: NotRequired[bool]
    allow: NotRequired[Sequence[str]]
    model: NotRequired[Detector | None]


def identify(photo: Picture, arguments: IdentifyArguments) -> Call[Identified]:
    """`POST /faces/identify`."""
    content, headers = multipart({"image": [to_upload(photo)]})
    return Call("POST", "/faces/identify", _identified, query(arguments), content, headers)


def annotate(photo: Picture, arguments: IdentifyArguments) -> Call[bytes]:
    """`POST /faces/identify?annotate=png`."""
    content, headers = multipart({"image": [to_upload(photo)]})
    params = query({**arguments, "annotate": "png"})
    return Call("POST", "/faces/identify", lambda response: response.content, params, content, headers)


def compare(a: Picture, b: Picture, arguments: CompareArguments) -> Call[FaceComparison]:
    """`POST /faces/compare`."""
    content, headers = multipart({"a": [to_upload(a)], "b": [to_upload(b, 1)]})
    return Call("POST", "/faces/compare", _compared, query(arguments), content, headers)


def enrol(name: str, photos: Picture | Iterable[Picture], arguments: EnrolArguments) -> Call[Enrolment]:
    """`POST /faces/people/{name}`. Not repeatable where it replaces; else the same photo twice is one."""
    uploads = [to_upload(photo, position) for position, photo in enumerate(_several(photos))]
    content, headers = multipart({"image": uploads})
    return Call(
        "POST",
        _person_path(name),
        _enrolled,
        query(arguments),
        content,
        headers,
        repeatable=not arguments.get("replace"),
        fail=_not_enrolled,
    )


def people(gallery: str | None) -> Call[list[Person]]:
    """`GET /faces/people`."""
    return Call("GET", PEOPLE, _people, query({"gallery": gallery}))


def galleries() -> Call[list[Gallery]]:
    """`GET /faces/galleries`."""
    return Call("GET", "/faces/galleries", _galleries)


def forget(name: str, gallery: str | None) -> Call[int]:
    """`DELETE /faces/people/{name}`. Not repeatable: the second time there is no such person."""
    return Call("DELETE", _person_path(name), _forgotten, query({"gallery": gallery}), repeatable=False)


class Asks(Protocol):
    """`Client.ask`."""

    def __call__(self, call: Call[T]) -> T: ...


class AsksAsync(Protocol):
    """`AsyncClient.ask`."""

    def __call__(self, call: Call[T]) -> Awaitable[T]: ...


class Faces:
    """`client.faces`. Every gallery argument names one of several sets of people; None is the service's default."""

    def __init__(self, ask: Asks) -> None:
        self._ask = ask

    def identify(self, photo: Picture, **arguments: Unpack[IdentifyArguments]) -> Identified:
        """Name every face of a photo. A photo without a face is an empty answer and no error.

        gallery: the people to search. tolerance: distance up to which two faces are one person. top: how many
        candidates for each face. model: the detector, `hog` or `cnn`. None leaves each to the service.
        Raises BadImage, NotFound for an unknown gallery, BadRequest.
        """
        return self._ask(identify(photo, arguments))

    def annotate(self, photo: Picture, **arguments: Unpack[IdentifyArguments]) -> bytes:
        """Draw the faces and their names into a photo. Returns a PNG file. The arguments and errors of `identify`."""
        return self._ask(annotate(photo, arguments))

    def compare(self, a: Picture, b: Picture, **arguments: Unpack[CompareArguments]) -> FaceComparison:
        """Tell whether two photos show the same person, by the largest face of each.

        tolerance, model: see `identify`. Raises BadImage with the code `no_face` where one shows none.
        """
        return self._ask(compare(a, b, arguments))

    def enrol(self, name: str, photos: Picture | Iterable[Picture], **arguments: Unpack[EnrolArguments]) -> Enrolment:
        """Make a person known by one or several photos, each judged for itself.

        expires: the day (2027-12-31) from which the person is forgotten. replace: forget first what is known of them.
        keep_photos: store the photos, too. allow: codes of reasons to waive, such as `looks_like_someone_else`.
        gallery, model: see `identify`. Raises PhotosRefused where every photo is refused, BadRequest.
        """
        return self._ask(enrol(name, photos, arguments))

    def people(self, *, gallery: str | None = None) -> list[Person]:
        """List the people of a gallery. Raises NotFound for an unknown gallery."""
        return self._ask(people(gallery))

    def galleries(self) -> list[Gallery]:
        """List the galleries."""
        return self._ask(galleries())

    def forget(self, name: str, *, gallery: str | None = None) -> int:
        """Forget a person and every photo of theirs. Returns how many encodings there were. Raises NotFound."""
        return self._ask(forget(name, gallery))


class AsyncFaces:
    """`Faces`, to be awaited."""

    def __init__(self, ask: AsksAsync) -> None:
        self._ask = ask

    async def identify(self, photo: Picture, **arguments: Unpack[IdentifyArguments]) -> Identified:
        """See `Faces.identify`."""
        return await self._ask(identify(photo, arguments))

    async def annotate(self, photo: Picture, **arguments: Unpack[IdentifyArguments]) -> bytes:
        """See `Faces.annotate`."""
        return await self._ask(annotate(photo, arguments))

    async def compare(self, a: Picture, b: Picture, **arguments: Unpack[CompareArguments]) -> FaceComparison:
        """See `Faces.compare`."""
        return await self._ask(compare(a, b, arguments))

    async def enrol(
        self, name: str, photos: Picture | Iterable[Picture], **arguments: Unpack[EnrolArguments]
    ) -> Enrolment:
        """See `Faces.enrol`."""
        return await self._ask(enrol(name, photos, arguments))

    async def people(self, *, gallery: str | None = None) -> list[Person]:
        """See `Faces.people`."""
        return await self._ask(people(gallery))

    async def galleries(self) -> list[Gallery]:
        """See `Faces.galleries`."""
        return await self._ask(galleries())

    async def forget(self, name: str, *, gallery: str | None = None) -> int:
        """See `Faces.forget`."""
        return await self._ask(forget(name, gallery))


def _person_path(name: str) -> str:
    return f"{PEOPLE}/{quote(name, safe='')}"


def _several(photos: Any) -> Iterable[Picture]:
    """One photo as one of several. Arrays, bytes and files can be iterated over, and are one photo."""
    return photos if isinstance(photos, list | tuple | set | frozenset) or _is_iterator(photos) else [photos]


def _is_iterator(value: Any) -> bool:
    return hasattr(value, "__next__") and not hasattr(value, "read")


def _identified(response: httpx.Response) -> Identified:
    answer = response.json()
    return Identified(
        tuple(_face(face) for face in answer["faces"]),
        answer["tolerance"],
        answer["known"],
        _request_id(response),
        tuple(answer.get("tried", ())),
    )


def _face(face: Mapping[str, Any]) -> Face:
    box = Box(**{side: int(face["box"][side]) for side in ("top", "right", "bottom", "left")})
    candidates = tuple(Candidate(one["name"], one["distance"]) for one in face.get("candidates") or ())
    measured = face.get("quality")
    quality = (
        Quality(**{name: measured[name] for name in ("side", "sharpness", "brightness", "turn")}) if measured else None
    )
    return Face(box, face["name"], face.get("distance"), candidates, quality, _refusals(face))


def _refusals(row: Mapping[str, Any]) -> tuple[Refusal, ...]:
    return tuple(
        Refusal(reason["code"], reason["text"], reason.get("measured"), reason.get("limit"))
        for reason in row.get("reasons", ())
    )


def _compared(response: httpx.Response) -> FaceComparison:
    answer = response.json()
    distance, tolerance = answer["distance"], answer["tolerance"]
    return FaceComparison(bool(answer.get("same", distance <= tolerance)), distance, tolerance, _request_id(response))


def _people(response: httpx.Response) -> list[Person]:
    rows = response.json()["people"]
    return [Person(row["name"], int(row.get("encodings", 0)), row.get("expires") or None) for row in rows]


def _galleries(response: httpx.Response) -> list[Gallery]:
    rows = response.json()["galleries"]
    return [Gallery(row["name"], int(row["people"]), int(row["encodings"]), row["encoder"]) for row in rows]


def _forgotten(response: httpx.Response) -> int:
    return int(response.json()["forgotten"])


def _enrolled(response: httpx.Response) -> Enrolment:
    answer = response.json()
    return Enrolment(answer["person"], tuple(_photo(row) for row in answer["photos"]), _request_id(response))


def _not_enrolled(response: httpx.Response) -> SightlineError:
    """The error of an enrolment; where every photo was judged and refused, with the verdicts."""
    problem = json_object(response)
    error = error_from_response(response)
    if "photos" not in problem:
        return error
    refused = error_from_problem(problem, PhotosRefused, status=error.status, request_id=error.request_id)
    refused.photos = tuple(_photo(row) for row in problem["photos"])
    return refused


def _photo(row: Mapping[str, Any]) -> EnrolledPhoto:
    error = error_from_problem(row["error"], BadImage) if "error" in row else None
    return EnrolledPhoto(row["name"], row["accepted"], bool(row.get("stored")), _refusals(row), error)


def _request_id(response: httpx.Response) -> str:
    return str(response.headers.get("X-Request-ID", ""))
