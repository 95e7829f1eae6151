"""TensorFlow Serving's REST API in the gateway, over real gRPC to a server whose answers one can compute by hand."""

import functools
import gzip
import json
import zlib
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from serving.backend.backends import Backends
from serving.gateway.app import create_app
from serving.gateway.http.v1_backend import GrpcBackend
from serving.gateway.settings import Settings
from tests.gateway.conftest import app_with_v1

RED = [[[200, 0, 0]] * 2] * 2


def test_rows_are_answered_with_rows_and_columns_with_columns(v1: FlaskClient) -> None:
    rows = v1.post("/v1/models/colors:predict", json={"instances": [RED]})
    assert rows.get_json() == {"predictions": [[1.0, 0.0, 0.0]]}
    columns = v1.post("/v1/models/colors/versions/1:predict", json={"inputs": [RED, RED]})
    assert columns.get_json() == {"outputs": [[1.0, 0.0, 0.0]] * 2}


def test_upper_and_lower_case_are_one(v1: FlaskClient) -> None:
    assert v1.post("/V1/Models/colors:PREDICT", json={"instances": [RED]}).status_code == 200


def test_the_state_is_told_as_over_there(v1: FlaskClient) -> None:
    assert v1.get("/v1/models/colors").get_json() == {
        "model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }


def test_a_gzip_body_is_unpacked_up_to_the_limit(v1: FlaskClient) -> None:
    def post(data: bytes) -> tuple[int, Any]:
        response = v1.post("/v1/models/colors:predict", data=data, headers={"Content-Encoding": "gzip"})
        assert response.content_type == "application/json"
        return response.status_code, response.get_json()

    packed = gzip.compress(json.dumps({"instances": [RED]}).encode())
    assert post(packed) == (200, {"predictions": [[1.0, 0.0, 0.0]]})
    assert post(gzip.compress(bytes(60_000)))[0] == 413
    assert post(packed[:-5])[0] == 400
    assert post(b"no gzip")[0] == 400


def test_deflate_is_unpacked_and_another_compression_refused(v1: FlaskClient) -> None:
    def post(coding: str) -> TestResponse:
        packed = zlib.compress(json.dumps({"instances": [RED]}).encode())
        return v1.post("/v1/models/colors:predict", data=packed, headers={"Content-Encoding": coding})

    assert post("deflate").get_json() == {"predictions": [[1.0, 0.0, 0.0]]}
    refused = post("br")
    assert (refused.status_code, refused.get_json()["code"]) == (415, "unsupported_content_encoding")


@pytest.mark.parametrize(
    ("request_line", "body", "status", "words"),
    [
        ("POST /v1/models/dogs:predict", {"instances": [RED]}, 404, "Servable not found"),
        ("POST /v1/models/colors:predict", {}, 400, "Missing 'inputs' or 'instances' key"),
        ("GET /v1/foo", None, 400, "Malformed request: GET /v1/foo"),
        ("GET /v1/models/dogs", None, 404, "Could not find any versions"),
    ],
)
def test_errors_are_those_of_over_there(v1: FlaskClient, request_line: str, body: Any, status: int, words: str) -> None:
    method, path = request_line.split()
    response = v1.open(path, method=method, json=body)
    assert response.status_code == status
    assert response.content_type == "application/json"
    assert words in response.get_json()["error"]


def test_a_model_server_that_is_away_is_503_with_retry_after(settings: Settings, predictor: Any) -> None:
    backends = Backends(["127.0.0.1:1"])
    app = create_app(settings, predictor, backend=functools.partial(GrpcBackend, backends))
    response = app.test_client().get("/v1/models/colors")
    backends.close()
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"


def test_json_past_its_limits_is_refused_in_the_form_of_over_there(settings: Settings, predictor: Any) -> None:
    with app_with_v1(settings.model_copy(update={"max_json_values": 50}), predictor) as app:
        client = app.test_client()
        many = client.post("/v1/models/colors:predict", data=f'{{"instances":[{"1," * 50}1]}}')
        deep = client.post("/v1/models/colors:predict", data="[" * 45 + "]" * 45)
    assert many.status_code == 413
    assert "SIGHTLINE_MAX_JSON_VALUES" in many.get_json()["error"]
    assert deep.status_code == 400


def test_json_nested_too_deep_is_refused(v1: FlaskClient) -> None:
    response = v1.post("/v1/models/colors:predict", data='{"instances":' + "[" * 100 + "]" * 100 + "}")
    assert response.status_code == 400
    assert "deeper than 64 levels" in response.get_json()["error"]
