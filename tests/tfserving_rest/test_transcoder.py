"""The transcoder alone, over a backend that echoes: whatever comes in, an answer goes out."""

import json
from typing import Any, cast

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.backend.methods import Method, Request, Response
from serving.backend.protos import wire_pb2 as wire
from serving.runtimes.status import CallError
from serving.tfserving_rest import Reply, answer

TYPES = {"i": wire.DT_INT32, "f": wire.DT_FLOAT, "s": wire.DT_STRING, "b": wire.DT_BOOL, "u": wire.DT_UINT8}


class Echo:
    """One signature for each type, whose output is its input; a model named `down` cannot be reached."""

    def call(self, method: Method[Request, Response], request: Request) -> Response:
        spec: wire.ModelSpec = request.model_spec  # type: ignore[attr-defined]
        if spec.name == "down":
            raise CallError(grpc.StatusCode.UNAVAILABLE, "failed to connect")
        response: Any = method.response()
        if isinstance(request, wire.PredictRequest):
            for alias, tensor in request.inputs.items():
                response.outputs[alias].CopyFrom(tensor)
        elif isinstance(request, wire.GetModelMetadataRequest):
            signatures = wire.SignatureDefMap()
            for name, dtype in TYPES.items():
                signatures.signature_def[name].inputs["x"].dtype = dtype
            response.model_spec.CopyFrom(spec)
            response.metadata["signature_def"].Pack(signatures)
        return cast(Response, response)


def post(body: bytes | str, path: str = "/v1/models/m:predict") -> Reply:
    return answer(Echo(), "POST", path, body.encode() if isinstance(body, str) else body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just({"b64": "aGk="}),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.just("x"), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(value=JSON, signature=st.sampled_from(sorted(TYPES)), key=st.sampled_from(["instances", "inputs"]))
def test_any_json_is_answered(value: Any, signature: str, key: str) -> None:
    reply = post(json.dumps({"signature_name": signature, key: value}))
    assert reply.status in (200, 400)
    if reply.status == 200:
        assert set(json.loads(reply.body)) == {"predictions" if key == "instances" else "outputs"}


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_answered(body: bytes) -> None:
    for method in ("predict", "classify", "regress"):
        assert post(body, f"/v1/models/m:{method}").status in (200, 400)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_path_is_answered(path: str) -> None:
    for method in ("GET", "POST", "PUT"):
        assert answer(Echo(), method, "/v1/models" + path, b"{}").status in (200, 400, 404)


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_any_examples_are_answered(value: Any) -> None:
    body = json.dumps({"examples": [{"x": value}], "context": {"y": value}})
    assert post(body, "/v1/models/m:regress").status in (200, 400)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_numbers_go_through_unchanged(values: list[float]) -> None:
    reply = post(json.dumps({"signature_name": "f", "instances": values}))
    back = json.loads(reply.body)["predictions"]
    assert np.array_equal(np.array(back, np.float32), np.array(values, np.float32), equal_nan=True)


@pytest.mark.parametrize(
    "body",
    [
        r'{"signature_name": "\ud800", "instances": [1]}',
        r'{"signature_name": "s", "instances": ["\ud800"]}',
        r'{"signature_name": "s", "instances": [{"\udfff": 1}]}',
    ],
)
def test_half_a_surrogate_pair_is_refused(body: str) -> None:
    assert post(body).status == 400
    assert "surrogate" in json.loads(post(body).body)["error"]
    assert post(r'{"signature_name": "s", "instances": ["\ud83d\ude00"]}').status == 200


def test_backend_errors_become_http_statuses() -> None:
    reply = answer(Echo(), "GET", "/v1/models/down")
    assert (reply.status, reply.code) == (503, grpc.StatusCode.UNAVAILABLE)
    assert json.loads(reply.body) == {"error": "failed to connect"}


@pytest.mark.parametrize("depth", [300, 940])
@pytest.mark.parametrize("method", ["predict", "classify"])
def test_json_nested_too_deeply_is_refused(depth: int, method: str) -> None:
    nested = "[" * depth + "1" + "]" * depth
    for body in (f'{{"signature_name": "f", "instances": {nested}}}', f'{{"examples": [{{"x": {nested}}}]}}'):
        assert post(body, f"/v1/models/m:{method}").status == 400


def test_a_version_of_thousands_of_digits_is_no_version() -> None:
    assert answer(Echo(), "GET", f"/v1/models/m/versions/{'9' * 5000}").status == 400
    assert answer(Echo(), "GET", f"/v1/models/m/versions/{'0' * 5000}7").status == 200
