"""/faces: identify and compare faces, and manage the known people."""

from collections.abc import Sequence

from flask import Blueprint, Response, g, request
from flask.typing import ResponseReturnValue

from serving.backend.predictor import Call
from serving.contract.errors import (
    BadImage,
    BadRequest,
    Conflict,
    DeadlineExceeded,
    FacesUnavailable,
    GalleryFull,
    ImageTooLarge,
    InvalidParameter,
    NotAnImage,
    TooManyImages,
    TooManyPixels,
    UnknownGallery,
    UnknownPerson,
    UnusableFace,
)
from serving.contract.executor import Executor
from serving.contract.headers import Header
from serving.faces.annotation import annotate
from serving.faces.enrolment import Verdict, enrol, refusal
from serving.faces.recognition import Faces, compare, identify
from serving.gateway.access.audit import audit
from serving.gateway.guard import client_has_gone
from serving.gateway.http.errors import problem, problem_body
from serving.gateway.http.face_requests import (
    COMPARE_PARAMETERS,
    ENROL_PARAMETERS,
    GALLERY_PARAMETERS,
    IDENTIFY_PARAMETERS,
    read_flag,
    read_gallery,
    read_model,
    read_standards,
    read_tolerance,
)
from serving.gateway.http.face_responses import (
    compared_body,
    galleries_body,
    identified_body,
    people_body,
    person_body,
    photo_body,
)
from serving.gateway.http.openapi import BYTES, Operation, described
from serving.gateway.http.requests import (
    BODY_ERRORS,
    PICTURES,
    Upload,
    read_pair,
    read_top,
    read_uploads,
    require_known,
)
from serving.gateway.http.schemas import (
    Compared,
    Enrolled,
    EnrolProblem,
    Forgotten,
    Galleries,
    Identified,
    NamedPerson,
    People,
    Photo,
    RefusedPhoto,
)
from serving.gateway.settings import Settings
from serving.gateway.workers.pool import WorkPool
from serving.prepare import read_headers

PAIR = ("a", "b")
PAIR_BODY = {
    "multipart/form-data": {
        "type": "object",
        "properties": dict.fromkeys(PAIR, BYTES),
        "required": list(PAIR),
    }
}
ASKED = (BadRequest, FacesUnavailable, DeadlineExceeded)
PHOTO = (*ASKED, *BODY_ERRORS, BadImage, ImageTooLarge, NotAnImage, TooManyPixels, TooManyImages, UnusableFace)

IDENTIFY = Operation(
    "faces",
    Identified,
    IDENTIFY_PARAMETERS,
    PICTURES,
    scope="faces",
    also=("image/png",),
    errors=(*PHOTO, UnknownGallery),
)
COMPARE = Operation("faces", Compared, COMPARE_PARAMETERS, PAIR_BODY, scope="faces", errors=PHOTO)
ENROL = Operation(
    "faces",
    Enrolled,
    ENROL_PARAMETERS,
    PICTURES,
    scope="admin",
    errors=(*PHOTO, Conflict, GalleryFull),
    problem=EnrolProblem,
)
GALLERIES = Operation("faces", Galleries, scope="faces", errors=ASKED)
PEOPLE = Operation("faces", People, GALLERY_PARAMETERS, scope="faces", errors=(*ASKED, UnknownGallery))
PERSON = Operation("faces", NamedPerson, GALLERY_PARAMETERS, scope="faces", errors=(*ASKED, UnknownPerson))
FORGET = Operation("faces", Forgotten, GALLERY_PARAMETERS, scope="admin", errors=(*ASKED, UnknownPerson))


def blueprint(people: Faces | None, settings: Settings, pool: WorkPool) -> Blueprint:
    """Make the routes. people: None where no face service runs; each route then answers FacesUnavailable.

    pool: parses large JSON and draws faces into images.
    """
    routes = Blueprint("faces", __name__, url_prefix="/faces")

    @routes.post("/identify")
    @described(IDENTIFY)
    def identify_route() -> ResponseReturnValue:
        """Identify every face of an image, the largest first."""
        faces, args = _required(people), require_known(request.args, IDENTIFY_PARAMETERS)
        wanted = args.get("annotate")
        if wanted not in (None, "png"):
            raise InvalidParameter(f"annotate is {wanted!r}; it must be png.")
        executor = _executor(pool)
        photo = _bytes(_single(settings, executor))
        (header,) = _usable([photo], settings)
        with g.stages.timed("faces"):
            answer = identify(
                faces,
                photo,
                gallery=read_gallery(args),
                tolerance=read_tolerance(args),
                candidates=read_top(args),
                model=read_model(args),
            )
        if wanted == "png":
            drawn = executor(lambda: annotate(photo, answer, settings.image_limits), header.decoding_bytes)
            return Response(drawn, content_type="image/png")
        return identified_body(answer, read_gallery(args), g.request_id)

    @routes.post("/compare")
    @described(COMPARE)
    def compare_route() -> Compared:
        """Compare the largest faces of two images: their distance, and the verdict."""
        faces, args = _required(people), require_known(request.args, COMPARE_PARAMETERS)
        one, other = read_pair(request, PAIR, _executor(pool))
        _usable([one, other], settings)
        with g.stages.timed("faces"):
            answer = compare(faces, one, other, tolerance=read_tolerance(args), model=read_model(args))
        return compared_body(answer, g.request_id)

    @routes.get("/galleries")
    @described(GALLERIES)
    def galleries() -> Galleries:
        """List all galleries."""
        require_known(request.args, ())
        return galleries_body(_required(people).store.galleries())

    @routes.get("/people")
    @described(PEOPLE)
    def list_people() -> People:
        """List the people of a gallery."""
        gallery = read_gallery(require_known(request.args, GALLERY_PARAMETERS))
        return people_body(gallery, _required(people).store.people(gallery))

    @routes.post("/people/", defaults={"name": ""})
    @routes.post("/people/<path:name>")
    @described(ENROL)
    def enrol_route(name: str) -> ResponseReturnValue:
        """Enrol a person by one or more photos, each judged by itself; 422 if all are refused."""
        faces, args = _required(people), require_known(request.args, ENROL_PARAMETERS)
        gallery, replace = read_gallery(args), read_flag(args, "replace")
        entries: list[Photo | RefusedPhoto] = []
        refused: list[Verdict | BadImage] = []
        for upload in _photos(settings, pool):
            outcome = _enrolled(faces, name, upload, gallery, replace)
            entries.append(photo_body(upload.name, outcome))
            if isinstance(outcome, BadImage) or not outcome.is_accepted:
                refused.append(outcome)
            else:
                replace = False  # the first accepted photo replaces, the others are added
        if len(refused) == len(entries):
            return _all_refused(refused[0], entries)
        enrolled: Enrolled = {"person": name, "gallery": gallery, "photos": entries, "request_id": g.request_id}
        return enrolled

    @routes.delete("/people/<path:name>")
    @described(FORGET)
    def forget(name: str) -> Forgotten:
        """Forget a person: delete their encodings and kept photos."""
        gallery = read_gallery(require_known(request.args, GALLERY_PARAMETERS))
        return {"gallery": gallery, "person": name, "forgotten": _forgotten(_required(people), gallery, name)}

    @routes.get("/people/<path:name>")
    @described(PERSON)
    def person(name: str) -> NamedPerson:
        """Return one person."""
        gallery = read_gallery(require_known(request.args, GALLERY_PARAMETERS))
        for each in _required(people).store.people(gallery):
            if each.name == name:
                return person_body(gallery, each)
        raise UnknownPerson(f"There is no {name!r} in the gallery {gallery!r}.", hint="See GET /faces/people.")

    return routes


def _required(people: Faces | None) -> Faces:
    if people is None:
        raise FacesUnavailable(
            "No face service is configured (SIGHTLINE_FACES_SOCKET).",
            hint="Install the extra faces and start with `sightline serve`, which starts it.",
        )
    return people


def _executor(pool: WorkPool) -> Executor:
    return pool.executor(Call(is_abandoned=client_has_gone()))


def _single(settings: Settings, executor: Executor) -> Upload:
    uploads = read_uploads(request, settings.max_images, settings.json_limits, executor)
    if len(uploads) > 1:
        raise TooManyImages(f"The request holds {len(uploads)} images; one is wanted.", hint="Send one at a time.")
    return uploads[0]


def _bytes(upload: Upload) -> bytes:
    if isinstance(upload.data, BadImage):
        raise upload.data
    return upload.data


def _photos(settings: Settings, pool: WorkPool) -> list[Upload]:
    """Read the photos of the request; one that cannot be used, as its header shows, becomes its error."""
    uploads = read_uploads(request, settings.max_images, settings.json_limits, _executor(pool))
    headers = read_headers([upload.data for upload in uploads], settings.image_limits)
    return [
        Upload(upload.name, header if isinstance(header, BadImage) else upload.data)
        for upload, header in zip(uploads, headers, strict=True)
    ]


def _usable(photos: Sequence[bytes], settings: Settings) -> list[Header]:
    """Read the headers of photos before the face service gets them. Raises RequestTooLarge, BadImage."""
    headers = []
    for header in read_headers(photos, settings.image_limits):
        if isinstance(header, BadImage):
            raise header
        headers.append(header)
    return headers


def _forgotten(faces: Faces, gallery: str, name: str) -> int:
    forgotten = faces.store.forget(gallery, name)
    audit("forget", gallery)
    return forgotten


def _enrolled(faces: Faces, name: str, upload: Upload, gallery: str, replace: bool) -> Verdict | BadImage:
    """Enrol one photo with the request's parameters; return the error of a bad image."""
    args = request.args
    try:
        verdict = enrol(
            faces,
            name,
            _bytes(upload),
            gallery=gallery,
            standards=read_standards(args),
            expires=args.get("expires"),
            keep_photo=read_flag(args, "keep_photos"),
            replace=replace,
            model=read_model(args),
        )
    except BadImage as exc:
        return exc
    if verdict.is_accepted:
        audit("replace" if replace else "enrol", gallery)
    return verdict


def _all_refused(first: Verdict | BadImage, entries: list[Photo | RefusedPhoto]) -> Response:
    """Answer with the problem of the first photo and the outcome of each."""
    error = first if isinstance(first, BadImage) else refusal(first)
    g.error = error
    body: EnrolProblem = {**problem_body(error), "photos": entries}
    return problem(error, body)
