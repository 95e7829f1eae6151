"""/faces held against the specification, with real dlib and a real gallery."""

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from PIL import Image

from serving.backend.backends import Backends
from serving.backend.grpc_predictor import GrpcPredictor
from serving.faces.recognition import Faces
from serving.gateway.app import create_app
from serving.gateway.settings import Settings
from tests.gateway.specification import BEYOND_A_SCHEMA, bounded, held_to

OPERATIONS = [
    ("/faces/identify", "post"),
    ("/faces/compare", "post"),
    ("/faces/galleries", "get"),
    ("/faces/people", "get"),
    ("/faces/people/{name}", "get"),
    ("/faces/people/{name}", "post"),
    ("/faces/people/{name}", "delete"),
]


@pytest.fixture
def api(known: Faces) -> Any:
    return held_to(create_app(Settings(), GrpcPredictor(Backends(["127.0.0.1:9"])), known))


def test_faces_are_answered_as_promised(api: Any) -> None:
    assert {(path, method) for path in api for method in api[path] if path.startswith("/faces")} == set(OPERATIONS)
    for path, method in OPERATIONS:

        @bounded
        @given(case=api[path][method].as_strategy())
        def promise(case: Any) -> None:
            case.call_and_validate(excluded_checks=BEYOND_A_SCHEMA)

        promise()


def small(photo: Path) -> bytes:
    """Small enough for memory: of a larger form werkzeug's client would leave its temporary file open."""
    image, file = Image.open(photo), io.BytesIO()
    image.thumbnail((500, 500))
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def test_what_is_answered_well_is_answered_as_promised(api: Any, photos: Path) -> None:
    obama, none = small(photos / "known" / "obama.jpg"), b"no picture"
    form = "multipart/form-data"
    for path, method, options in [
        ("/faces/identify", "post", {"body": obama, "media_type": "application/octet-stream"}),
        ("/faces/compare", "post", {"body": {"a": obama, "b": obama}, "media_type": form}),
        (
            "/faces/people/{name}",
            "post",
            {"body": {"image": [obama, none]}, "media_type": form, "query": {"expires": "2999-01-01"}},
        ),
        ("/faces/people/{name}", "get", {}),
        ("/faces/people", "get", {}),
        ("/faces/galleries", "get", {}),
        ("/faces/people/{name}", "delete", {}),
    ]:
        parameters = {"name": "obama"} if "{name}" in path else {}
        case = api[path][method].Case(path_parameters=parameters, **options)
        response = case.call_and_validate(excluded_checks=BEYOND_A_SCHEMA)
        assert response.status_code == 200, (path, response.text)


def test_a_person_whose_every_photo_is_refused_is_answered_as_promised(api: Any) -> None:
    case = api["/faces/people/{name}"]["post"].Case(
        path_parameters={"name": "x"}, body={"image": [b"no picture"]}, media_type="multipart/form-data"
    )
    assert case.call_and_validate(excluded_checks=BEYOND_A_SCHEMA).status_code == 415
