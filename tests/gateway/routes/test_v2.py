"""The Open Inference Protocol: by hand, and with Triton's own client over real HTTP."""

import base64
import gzip
import json
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from serving.gateway.app import create_app
from serving.gateway.settings import Settings
from tests.cards import COLORS

triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")

URL = "/v2/models/colors/infer"
FLOATS = replace(
    COLORS,
    input=replace(COLORS.input, dtype="float32"),
    preprocessing=replace(COLORS.preprocessing, dtype="float32"),
)
RED_AND_BLUE = np.array([[[[200, 0, 0]] * 2] * 2, [[[0, 0, 9]] * 2] * 2], np.uint8)


@pytest.fixture
def client_of_triton(settings: Settings, predictor: Any) -> Iterator[Any]:
    server = make_server("127.0.0.1", 0, create_app(settings, predictor), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    client = triton.InferenceServerClient(f"127.0.0.1:{server.server_port}")
    yield client
    client.close()
    server.shutdown()
    thread.join()
    server.server_close()


def tensor_input(array: Any, *, binary: bool, datatype: str = "UINT8") -> Any:
    given = triton.InferInput("image", list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def test_triton_learns_what_is_served(client_of_triton: Any) -> None:
    assert client_of_triton.is_server_live()
    assert client_of_triton.is_server_ready()
    assert client_of_triton.is_model_ready("colors")
    assert not client_of_triton.is_model_ready("colors", "0")
    assert client_of_triton.get_server_metadata()["name"] == "sightline"
    assert client_of_triton.get_model_metadata("colors") == {
        "name": "colors",
        "versions": ["1"],
        "platform": "tensorflow_savedmodel",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 2, 2, 3]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}],
    }
    rows = client_of_triton.get_model_repository_index()
    assert [(row["name"], row["version"], row["state"]) for row in rows] == [
        ("colors", "1", "READY"),
        ("colors", "0", "UNAVAILABLE"),
    ]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_triton_sends_a_tensor(client_of_triton: Any, binary_in: bool, binary_out: bool) -> None:
    result = client_of_triton.infer(
        "colors",
        [tensor_input(RED_AND_BLUE, binary=binary_in)],
        outputs=[triton.InferRequestedOutput("probabilities", binary_data=binary_out)],
        request_id="abc",
    )
    assert result.as_numpy("probabilities").tolist() == [[1, 0, 0], [0, 0, 1]]
    assert result.get_response()["id"] == "abc"
    assert result.get_response()["model_version"] == "1"


def test_triton_sends_pictures_as_files_and_asks_for_classes(
    client_of_triton: Any, picture: Callable[..., bytes]
) -> None:
    files = np.array([picture("red"), picture("blue")], dtype=object)
    result = client_of_triton.infer(
        "colors",
        [tensor_input(files, binary=True, datatype="BYTES")],
        outputs=[triton.InferRequestedOutput("probabilities", class_count=1)],
    )
    assert result.as_numpy("probabilities").tolist() == [[b"1.000000:0:red"], [b"1.000000:2:blue"]]


def test_triton_without_outputs_gets_the_probabilities(client_of_triton: Any) -> None:
    result = client_of_triton.infer("colors", [tensor_input(RED_AND_BLUE, binary=True)], model_version="1")
    assert result.as_numpy("probabilities").tolist() == [[1, 0, 0], [0, 0, 1]]


def test_triton_is_told_what_is_wrong(client_of_triton: Any) -> None:
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match="no model 'dogs'"):
        client_of_triton.get_model_metadata("dogs")
    with pytest.raises(InferenceServerException, match="shape"):
        client_of_triton.infer("colors", [tensor_input(RED_AND_BLUE[:, :1], binary=True)])


def body(**changes: Any) -> dict[str, Any]:
    given = {"name": "image", "shape": [1, 2, 2, 3], "datatype": "UINT8", "data": [200, 0, 0] * 4} | changes
    return {"inputs": [given]}


@pytest.mark.parametrize(
    "written",
    [
        lambda red: base64.b64encode(red).decode(),
        lambda red: base64.encodebytes(red).decode(),
        lambda red: base64.urlsafe_b64encode(red).decode().rstrip("="),
        lambda red: "data:image/png;name=red.png;base64," + base64.b64encode(red).decode(),
    ],
)
def test_pictures_in_json_are_base64(client: FlaskClient, red: bytes, written: Callable[[bytes], str]) -> None:
    text = written(red)
    response = client.post(URL, json=body(datatype="BYTES", shape=[1], data=[text]))
    assert response.get_json()["outputs"] == [
        {"name": "probabilities", "datatype": "FP32", "shape": [1, 3], "data": [1, 0, 0]}
    ]


@pytest.mark.parametrize(("coding", "packed"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_body_may_be_compressed(client: FlaskClient, coding: str, packed: Callable[[bytes], bytes]) -> None:
    packed_body = packed(json.dumps(body()).encode())
    response = client.post(URL, data=packed_body, headers={"Content-Encoding": coding})
    assert response.get_json()["outputs"][0]["data"] == [1, 0, 0]
    refused = client.post(URL, data=packed_body, headers={"Content-Encoding": "br"})
    assert (refused.status_code, refused.get_json()["code"]) == (415, "unsupported_content_encoding")


def test_a_new_version_in_the_middle_answers(client: FlaskClient, predictor: Any) -> None:
    predictor.changes = 1
    assert client.post(URL, json=body()).get_json()["model_version"] == "2"


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ([], "invalid_json"),
        ({}, "invalid_json"),
        ({"inputs": [1]}, "invalid_json"),
        ({**body(), "id": 3}, "invalid_json"),
        ({**body(), "outputs": [{"name": "x"}]}, "invalid_json"),
        ({**body(), "outputs": 3}, "invalid_json"),
        ({**body(), "parameters": 3}, "invalid_json"),
        ({**body(), "outputs": [{"name": "probabilities", "parameters": {"classification": "x"}}]}, "invalid_json"),
        (body(name="x"), "invalid_json"),
        (body(shape=[1]), "invalid_json"),
        (body(shape=[0, 2, 2, 3]), "invalid_json"),
        (body(shape=[99, 2, 2, 3]), "invalid_json"),
        (body(shape=["a"]), "invalid_json"),
        (body(datatype="FP32"), "invalid_json"),
        (body(data=[1]), "invalid_json"),
        (body(data=["a"]), "invalid_json"),
        (body(data=[300] * 12), "invalid_json"),
        (body(data=[[1], [1, 2]]), "invalid_json"),
        (body(parameters={"binary_data_size": 5}), "invalid_json"),
        (body(datatype="BYTES", shape=[1], data=["***"]), "invalid_base64"),
        (body(datatype="BYTES", shape=[1], data=[""]), "empty_image"),
        (body(datatype="BYTES", shape=[2], data=[""]), "invalid_json"),
        (body(datatype="BYTES", shape=[1], data=[3]), "invalid_json"),
    ],
)
def test_a_request_that_is_wrong_is_refused_in_plain_json(client: FlaskClient, document: Any, code: str) -> None:
    response = client.post(URL, json=document)
    assert response.status_code == 400
    assert response.content_type == "application/json"
    assert response.get_json()["code"] == code
    assert response.get_json()["error"]


@pytest.mark.parametrize("raw", [b"\1", b"\4\0\0\0a", b""])
def test_binary_pictures_that_end_early_are_refused(client: FlaskClient, raw: bytes) -> None:
    head = json.dumps(body(datatype="BYTES", shape=[1], parameters={"binary_data_size": len(raw)})).encode()
    response = client.post(URL, data=head + raw, headers={"Inference-Header-Content-Length": str(len(head))})
    assert response.get_json()["code"] == "invalid_json"


@pytest.mark.parametrize("length", ["x", "-1", "999999"])
def test_a_length_of_the_header_that_cannot_be_is_refused(client: FlaskClient, length: str) -> None:
    response = client.post(URL, json=body(), headers={"Inference-Header-Content-Length": length})
    assert response.get_json()["code"] == "invalid_json"


def test_not_ready_is_503(client: FlaskClient) -> None:
    assert client.get("/v2/models/colors/versions/0/ready").status_code == 503
    assert client.get("/v2/models/dogs/ready").status_code == 404
    assert client.get("/v2/health/live").get_json() == {"live": True}
    assert client.get("/v2/models").get_json() == {"models": ["colors"]}


@pytest.mark.parametrize("value", [1.9, "7", True, -1, 256, None, 10**400], ids=str)
def test_a_value_that_the_datatype_does_not_have_is_refused(client: FlaskClient, value: Any) -> None:
    given = {"name": "image", "shape": [1, 2, 2, 3], "datatype": "UINT8", "data": [0] * 11 + [value]}
    response = client.post(URL, json={"inputs": [given]})
    assert (response.status_code, response.get_json()["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e39", "true", '"1"'])
def test_a_float_input_takes_finite_numbers_only(settings: Settings, predictor: Any, value: str) -> None:
    predictor.card = FLOATS
    client = create_app(settings, predictor).test_client()
    head = '{"inputs": [{"name": "image", "shape": [1, 2, 2, 3], "datatype": "FP32", "data": [1.5, 2,'
    for last, status in (("3", 200), (value, 400)):
        data = head + ", ".join(["0"] * 9 + [last]) + "]}]}"
        assert client.post(URL, data=data, content_type="application/json").status_code == status


@pytest.mark.parametrize(
    "shape", [[1] + [10**19] * 230, [1, 10**4000], [1] * 100, []], ids=["wide", "long", "deep", "no"]
)
def test_a_shape_without_bounds_is_refused(client: FlaskClient, shape: list[int]) -> None:
    given = {"name": "image", "shape": shape, "datatype": "BYTES", "data": ["aGk="]}
    response = client.post(URL, json={"inputs": [given]})
    assert (response.status_code, response.get_json()["code"]) == (400, "invalid_json")


def test_numbers_of_thousands_of_digits_are_refused(client: FlaskClient) -> None:
    digits = "9" * 5000
    sent = client.post(URL, data=b"{}", headers={"Inference-Header-Content-Length": digits})
    assert sent.status_code == 400
    assert client.get(f"/v2/models/colors/versions/{digits}").status_code == 400


def test_images_with_too_many_pixels_together_are_refused(
    settings: Settings, predictor: Any, picture: Callable[..., bytes]
) -> None:
    client = create_app(settings.model_copy(update={"max_request_pixels": 199}), predictor).test_client()
    data = [base64.b64encode(picture(size=(10, 10))).decode()] * 2
    body = {"inputs": [{"name": "image", "shape": [2], "datatype": "BYTES", "data": data}]}
    response = client.post(URL, json=body)
    assert (response.status_code, response.get_json()["code"]) == (413, "request_too_large")
    assert "SIGHTLINE_MAX_REQUEST_PIXELS" in response.get_json()["detail"]


def test_json_past_its_limits_is_refused(settings: Settings, predictor: Any) -> None:
    client = create_app(settings.model_copy(update={"max_json_values": 50}), predictor).test_client()
    many = client.post(URL, data=f"[{'1,' * 50}1]")
    assert (many.status_code, many.get_json()["code"]) == (413, "request_too_large")


def test_an_answer_that_is_no_number_fails_the_request(client: FlaskClient, predictor: Any) -> None:
    predictor.damage = lambda rows: rows * np.float32(np.nan)
    tensor = {"name": "image", "datatype": "UINT8", "shape": [2, 2, 2, 3], "data": RED_AND_BLUE.reshape(-1).tolist()}
    response = client.post(URL, json={"inputs": [tensor]})
    assert (response.status_code, response.get_json()["code"]) == (500, "model_failed")
    assert b"NaN" not in response.data
