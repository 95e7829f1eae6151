"""/faces over HTTP, with real dlib and a real gallery."""

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.test import TestResponse, stream_encode_multipart

from serving.backend.backends import Backends
from serving.backend.grpc_predictor import GrpcPredictor
from serving.contract.errors import FaceProcessDied, GalleryBusy, GalleryFull, Overloaded, SightlineError
from serving.faces.face import Detection, DetectorModel
from serving.faces.galleries.gallery import Entry
from serving.faces.recognition import Faces
from serving.gateway.access.keys import new_key
from serving.gateway.app import create_app
from serving.gateway.settings import Settings


def app_with(faces: Faces | None) -> FlaskClient:
    predictor = GrpcPredictor(Backends(["127.0.0.1:9"]))  # never asked
    return create_app(Settings(), predictor, faces).test_client()


@pytest.fixture
def client(known: Faces) -> FlaskClient:
    return app_with(known)


@pytest.fixture
def empty(faces: Faces) -> FlaskClient:
    return app_with(faces)


def blank(size: tuple[int, int] = (200, 100)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "teal").save(file, "PNG")
    return file.getvalue()


def form(*files: bytes) -> dict[str, Any]:
    """A form with the field `image`, as arguments of the client."""
    return encoded([("image", data) for data in files])


def pair(one: bytes, other: bytes) -> dict[str, Any]:
    """A form with the fields `a` and `b`."""
    return encoded([("a", one), ("b", other)])


def encoded(fields: list[tuple[str, bytes]]) -> dict[str, Any]:
    """In memory: werkzeug's own client would leave its temporary file open."""
    files = [(name, FileStorage(io.BytesIO(data), f"{number}.jpg")) for number, (name, data) in enumerate(fields)]
    stream, _, boundary = stream_encode_multipart(MultiDict(files), use_tempfile=False)
    return {"data": stream.read(), "content_type": f"multipart/form-data; boundary={boundary}"}


def problem(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    body = response.get_json()
    assert (response.status_code, body["code"]) == (status, code), body
    assert response.content_type == "application/problem+json"
    assert body["detail"]
    return dict(body)


def test_identify_answers_every_face(client: FlaskClient, photos: Path) -> None:
    two = (photos / "unknown" / "obama_and_biden.jpg").read_bytes()
    body = client.post("/faces/identify?top=2", **form(two)).get_json()
    assert [face["name"] for face in body["faces"]] == ["biden", "obama", None]
    assert (body["tolerance"], body["known"], body["gallery"]) == (0.6, 5, "default")
    assert (body["width"], body["height"]) == (2000, 1428)
    assert body["tried"] == ["upright", "upright, double size"]
    first = body["faces"][0]
    assert set(first["box"]) == {"top", "right", "bottom", "left"}
    assert first["distance"] == first["candidates"][0]["distance"] < 0.6
    assert [len(face["candidates"]) for face in body["faces"]] == [2, 2, 2]
    assert first["quality"]["side"] == first["box"]["bottom"] - first["box"]["top"]
    assert [face["reasons"] for face in body["faces"]] == [[], [], []]
    assert "encoding" not in str(body).replace("encodings", "")


def test_identify_takes_raw_bytes_and_a_tolerance(client: FlaskClient, photos: Path) -> None:
    photo = (photos / "unknown" / "obama2.jpg").read_bytes()
    body = client.post("/faces/identify?tolerance=0.3", data=photo, content_type="image/jpeg").get_json()
    (face,) = body["faces"]
    assert face["name"] is None
    assert face["candidates"][0]["name"] == "obama"
    assert body["tolerance"] == 0.3


def test_no_face_is_an_empty_list(client: FlaskClient) -> None:
    response = client.post("/faces/identify", **form(blank()))
    assert response.status_code == 200
    assert response.get_json()["faces"] == []
    assert len(response.get_json()["tried"]) == 6


@pytest.mark.parametrize("model", ["hog", "cnn"])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (9, 1), (3000, 30), (20, 20)])
def test_a_picture_too_small_for_a_face_costs_no_process(
    empty: FlaskClient, size: tuple[int, int], model: DetectorModel
) -> None:
    response = empty.post(f"/faces/identify?model={model}", **form(blank(size)))
    assert (response.status_code, response.get_json()["faces"]) == (200, [])


def test_empty_gallery_has_no_candidates(empty: FlaskClient, photos: Path) -> None:
    body = empty.post("/faces/identify", **form((photos / "known" / "obama.jpg").read_bytes())).get_json()
    assert body["known"] == 0
    assert (body["faces"][0]["name"], body["faces"][0]["distance"], body["faces"][0]["candidates"]) == (None, None, [])


def test_annotated_picture_is_a_png_of_the_same_size(client: FlaskClient, photos: Path) -> None:
    photo = (photos / "unknown" / "two_people.jpg").read_bytes()
    response = client.post("/faces/identify?annotate=png", **form(photo))
    assert response.content_type == "image/png"
    drawn, plain = Image.open(io.BytesIO(response.data)), Image.open(io.BytesIO(photo))
    assert drawn.size == plain.size
    assert np.any(np.asarray(drawn) != np.asarray(plain))


def test_compare_tells_distance_and_verdict(empty: FlaskClient, photos: Path) -> None:
    one, other = (photos / "known" / "obama.jpg").read_bytes(), (photos / "unknown" / "obama2.jpg").read_bytes()
    body = empty.post("/faces/compare", **pair(one, other)).get_json()
    assert body["same"] is True
    assert body["distance"] < body["tolerance"] == 0.6
    assert body["a"]["faces"] == 1
    assert "second photo" in problem(empty.post("/faces/compare", **pair(one, blank())), 422, "no_face")["detail"]
    problem(empty.post("/faces/compare", **encoded([("a", one)])), 400, "missing_image")
    problem(empty.post("/faces/compare", json={}), 415, "unsupported_content_type")


def test_person_is_enrolled_listed_and_forgotten(empty: FlaskClient, photos: Path) -> None:
    good = (photos / "known" / "obama.jpg").read_bytes()
    also = (photos / "unknown" / "obama2.jpg").read_bytes()
    body = empty.post("/faces/people/Barack Obama?expires=2999-01-01", **form(good, blank(), b"x", also)).get_json()
    assert [entry["accepted"] for entry in body["photos"]] == [True, False, False, True]
    assert body["photos"][1]["reasons"][0]["code"] == "no_face"
    assert body["photos"][2]["error"]["code"] == "not_an_image"
    person = {"name": "Barack Obama", "encodings": 2, "expires": "2999-01-01"}
    assert empty.get("/faces/people").get_json() == {"gallery": "default", "people": [person], "known": 2}
    assert empty.get("/faces/people/Barack Obama").get_json()["encodings"] == 2
    assert empty.post("/faces/people/Barack Obama?replace=true", **form(also, good)).status_code == 200
    assert empty.get("/faces/people").get_json()["known"] == 2
    assert empty.delete("/faces/people/Barack Obama").get_json()["forgotten"] == 2
    problem(empty.delete("/faces/people/Barack Obama"), 404, "unknown_person")
    problem(empty.get("/faces/people/Barack Obama"), 404, "unknown_person")


def test_refused_photo_is_422_with_its_reasons(empty: FlaskClient, photos: Path) -> None:
    body = problem(empty.post("/faces/people/ada", **form(blank())), 422, "no_face")
    assert body["photos"][0]["reasons"][0]["text"] == "There is no face in this photo."
    two = (photos / "unknown" / "two_people.jpg").read_bytes()
    body = problem(empty.post("/faces/people/ada", **form(two)), 422, "too_many_faces")
    assert len(body["photos"][0]["faces"]) == 2
    tiny = Image.open(photos / "known" / "obama.jpg").resize((120, 150))
    file = io.BytesIO()
    tiny.save(file, "PNG")
    body = problem(empty.post("/faces/people/ada", **form(file.getvalue())), 422, "face_refused")
    reason = body["photos"][0]["reasons"][0]
    assert (reason["code"], reason["limit"]) == ("too_small", 60)
    problem(empty.post("/faces/people/ada", **form(b"hello")), 415, "not_an_image")
    assert empty.get("/faces/people").get_json()["people"] == []


def test_named_galleries_are_apart(empty: FlaskClient, photos: Path) -> None:
    photo = (photos / "known" / "obama.jpg").read_bytes()
    assert empty.post("/faces/people/obama?gallery=staff", **form(photo)).status_code == 200
    assert empty.get("/faces/galleries").get_json()["galleries"][0]["name"] == "staff"
    assert empty.get("/faces/people").get_json()["people"] == []
    body = empty.post("/faces/identify?gallery=staff", **form(photo)).get_json()
    assert body["faces"][0]["name"] == "obama"
    problem(empty.post("/faces/identify?gallery=nowhere", **form(photo)), 404, "unknown_gallery")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/faces/people/", "invalid_name"),
        ("/faces/people/%20", "invalid_name"),
        ("/faces/people/..%2F..%2Fetc", "invalid_name"),
        ("/faces/people/a/b", "invalid_name"),
        (f"/faces/people/{'x' * 101}", "invalid_name"),
        ("/faces/people/ada?gallery=Not%20one", "invalid_name"),
        ("/faces/people/ada?expires=soon", "invalid_parameter"),
        ("/faces/people/ada?replce=true", "invalid_parameter"),
        ("/faces/people/ada?replace=maybe", "invalid_parameter"),
        ("/faces/identify?tolerance=x", "invalid_parameter"),
        ("/faces/identify?tolerance=nan", "invalid_parameter"),
        ("/faces/identify?tolerance=9", "invalid_parameter"),
        ("/faces/identify?model=magic", "invalid_parameter"),
        ("/faces/identify?annotate=gif", "invalid_parameter"),
    ],
)
def test_bad_names_and_parameters_have_their_code(empty: FlaskClient, photos: Path, path: str, code: str) -> None:
    problem(empty.post(path, **form((photos / "known" / "obama.jpg").read_bytes())), 400, code)


def test_one_picture_at_a_time_is_identified(client: FlaskClient) -> None:
    problem(client.post("/faces/identify", **form(blank(), blank())), 413, "too_many_images")


def test_gallery_of_another_encoder_is_a_conflict(empty: FlaskClient, faces: Faces, photos: Path) -> None:
    faces.store.enrol("default", [Entry("ada", np.zeros(128, np.float32), "x")], encoder="other@1")
    photo = (photos / "known" / "obama.jpg").read_bytes()
    problem(empty.post("/faces/identify", **form(photo)), 409, "encoder_mismatch")


class FailingFinder:
    def __init__(self, error: SightlineError) -> None:
        self._error = error

    def find(self, data: bytes, model: DetectorModel = "hog", *, retry: bool = True) -> Detection:  # noqa: ARG002
        raise self._error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Overloaded("full"), 503),
        (FaceProcessDied("died"), 503),
        (GalleryBusy("locked"), 503),
        (GalleryFull("full"), 507),
    ],
)
def test_failures_have_their_status(faces: Faces, error: SightlineError, status: int) -> None:
    failing: Any = FailingFinder(error)
    response = app_with(Faces(failing, faces.encoder, faces.store)).post("/faces/identify", **form(blank()))
    problem(response, status, error.code)
    assert ("Retry-After" in response.headers) == (status == 503)


@pytest.mark.parametrize("path", ["/faces/identify", "/faces/compare", "/faces/people/ada"])
def test_gateway_without_a_face_service_says_so(path: str) -> None:
    problem(app_with(None).post(path, **form(blank())), 503, "faces_unavailable")


def test_log_holds_no_name_of_a_person(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client.get("/faces/people/rose_leslie")
    client.delete("/faces/people/rose_leslie")
    told = " ".join(str(vars(record)) for record in caplog.records)
    assert "/faces/people/<path:name>" in told
    assert "rose" not in told


def test_every_change_of_the_known_set_is_audited(faces: Faces, photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    key, entry = new_key("office", ["admin"])
    client = create_app(Settings(api_keys=entry), GrpcPredictor(Backends(["127.0.0.1:9"])), faces).test_client()
    headers = {"Authorization": f"Bearer {key}", "X-Request-ID": "r-1"}
    caplog.set_level(logging.INFO)
    good = (photos / "known" / "obama.jpg").read_bytes()
    client.post("/faces/people/ada", **form(good, blank()), headers=headers)
    client.post("/faces/people/ada?replace=true", **form(good), headers=headers)
    client.delete("/faces/people/ada", headers=headers)
    client.delete("/faces/people/nobody", headers=headers)  # changes nothing
    lines = [vars(record)["fields"] for record in caplog.records if record.message == "audit"]
    who = {"gallery": "default", "request_id": "r-1", "key": "office", "address": "127.0.0.1"}
    assert lines == [{"change": change, **who} for change in ("enrol", "replace", "forget")]
