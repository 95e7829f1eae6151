"""/faces: who is in the picture, are two the same, and the known set."""

from typing import Any

from flask import Blueprint, Response, current_app, g, request
from flask.typing import ResponseReturnValue

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
from serving.faces.annotation import annotate
from serving.faces.enrolment import Verdict, enrol, refusal
from serving.faces.recognition import Faces, compare, identify
from serving.gateway.access.audit import audit
from serving.gateway.http.errors import error_fields, problem
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
from serving.gateway.http.face_responses import compared_body, identified_body, people_body, verdict_body
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
)
from serving.gateway.settings import Settings
from serving.gateway.workers.greenlets import in_thread

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


def blueprint(people: Faces | None, settings: Settings) -> Blueprint:
    """The routes, with the faces that they ask; None answers each of them with FacesUnavailable."""
    routes = Blueprint("faces", __name__, url_prefix="/faces")

    @routes.post("/identify")
    @described(IDENTIFY)
    def identify_route() -> ResponseReturnValue:
        """Name every face of one picture, the largest first."""
        faces, args = _required(people), require_known(request.args, IDENTIFY_PARAMETERS)
        wanted = args.get("annotate")
        if wanted not in (None, "png"):
            raise InvalidParameter(f"annotate is {wanted!r}; it must be png")
        photo = _bytes(_single(settings))
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
            return Response(in_thread(lambda: annotate(photo, answer, settings.image_limits)), content_type="image/png")
        return identified_body(answer, read_gallery(args), g.request_id)

    @routes.post("/compare")
    @described(COMPARE)
    def compare_route() -> dict[str, Any]:
        """The distance of the largest faces of two pictures, and whether they are one person."""
        faces, args = _required(people), require_known(request.args, COMPARE_PARAMETERS)
        one, other = read_pair(request, PAIR)
        with g.stages.timed("faces"):
            answer = compare(faces, one, other, tolerance=read_tolerance(args), model=read_model(args))
        return compared_body(answer, g.request_id)

    @routes.get("/galleries")
    @described(GALLERIES)
    def galleries() -> dict[str, Any]:
        """All galleries."""
        require_known(request.args, ())
        rows = _required(people).store.galleries()
        return {
            "galleries": [
                {"name": row.name, "encoder": row.encoder, "people": row.people, "encodings": row.encodings}
                for row in rows
            ]
        }

    @routes.get("/people")
    @described(PEOPLE)
    def list_people() -> dict[str, Any]:
        """Everybody in a gallery."""
        gallery = read_gallery(require_known(request.args, GALLERY_PARAMETERS))
        return people_body(gallery, _required(people).store.people(gallery))

    @routes.post("/people/", defaults={"name": ""})
    @routes.post("/people/<path:name>")
    @described(ENROL)
    def enrol_route(name: str) -> ResponseReturnValue:
        """Enrol a person by one or several photos, each judged for itself; all refused is a 422."""
        faces, args = _required(people), require_known(request.args, ENROL_PARAMETERS)
        gallery, replace = read_gallery(args), read_flag(args, "replace")
        entries: list[dict[str, Any]] = []
        refused: list[Verdict | BadImage] = []
        for upload in read_uploads(request, settings.max_images):
            outcome = _enrolled(faces, name, upload, gallery, replace)
            if isinstance(outcome, BadImage):
                refused.append(outcome)
                entries.append({"name": upload.name, "accepted": False, "error": error_fields(outcome)})
                continue
            if not outcome.is_accepted:
                refused.append(outcome)
            replace = replace and not outcome.is_accepted  # the first accepted photo replaces, the others are added
            entries.append({"name": upload.name, **verdict_body(outcome)})
        if len(refused) == len(entries):
            return _all_refused(refused, entries)
        return {"person": name, "gallery": gallery, "photos": entries, "request_id": g.request_id}

    @routes.delete("/people/<path:name>")
    @described(FORGET)
    def forget(name: str) -> dict[str, Any]:
        """Forget a person: their encodings and kept photos are purged."""
        gallery = read_gallery(require_known(request.args, GALLERY_PARAMETERS))
        return {"gallery": gallery, "person": name, "forgotten": _forgotten(_required(people), gallery, name)}

    @routes.get("/people/<path:name>")
    @described(PERSON)
    def person(name: str) -> dict[str, Any]:
        """One person."""
        gallery = read_gallery(require_known(request.args, GALLERY_PARAMETERS))
        for each in people_body(gallery, _required(people).store.people(gallery))["people"]:
            if each["name"] == name:
                return {"gallery": gallery, **each}
        raise UnknownPerson(f"there is no {name!r} in the gallery {gallery!r}", hint="See GET /faces/people.")

    return routes


def _required(people: Faces | None) -> Faces:
    if people is None:
        raise FacesUnavailable(
            "no face service is configured (SIGHTLINE_FACES_SOCKET)",
            hint="Install the extra faces and start with `sightline serve`, which starts it.",
        )
    return people


def _single(settings: Settings) -> Upload:
    uploads = read_uploads(request, settings.max_images)
    if len(uploads) > 1:
        raise TooManyImages(f"the request holds {len(uploads)} pictures; one is wanted", hint="Send one at a time.")
    return uploads[0]


def _bytes(upload: Upload) -> bytes:
    if isinstance(upload.data, BadImage):
        raise upload.data
    return upload.data


def _forgotten(faces: Faces, gallery: str, name: str) -> int:
    forgotten = faces.store.forget(gallery, name)
    audit("forget", gallery)
    return forgotten


def _enrolled(faces: Faces, name: str, upload: Upload, gallery: str, replace: bool) -> Verdict | BadImage:
    """What became of one photo, as the request's parameters want it."""
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


def _all_refused(refused: list[Verdict | BadImage], entries: list[dict[str, Any]]) -> Response:
    """A problem that says what is wrong with the first photo, and with each."""
    first = refused[0]
    error = first if isinstance(first, BadImage) else refusal(first)
    g.error = error
    response = problem(error)
    response.set_data(current_app.json.dumps({**response.get_json(), "photos": entries}))
    return response
