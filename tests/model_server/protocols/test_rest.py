"""The REST port of the model server: section 8 of the facts, over real HTTP."""

import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.model_server.server_process import running

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def rest(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("rest")
    monitoring = folder / "monitoring.txt"
    monitoring.write_text("prometheus_config { enable: true }")
    with running(folder, "--models", models_dir, "--monitoring_config_file", monitoring, rest=True) as server:
        for path in models_dir.glob("*/*"):
            server.wait_for(path.parent.name, int(path.name))
        with httpx.Client(base_url=f"http://127.0.0.1:{server.rest_port}", trust_env=False, timeout=30) as client:
            yield client


def predict(rest: httpx.Client, model: str, body: Any, **options: Any) -> httpx.Response:
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    return rest.post(f"/v1/models/{model}:predict", content=content, **options)


def error(response: httpx.Response, status: int = 400) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    (item,) = response.json().items()
    assert item[0] == "error"
    text: str = item[1]
    return text


def test_rows_give_predictions_and_columns_outputs(rest: httpx.Client) -> None:
    assert predict(rest, "half_plus_two", {"instances": [1.0, 2, 5]}).json() == {"predictions": [2.5, 3.0, 4.5]}
    assert predict(rest, "half_plus_two", {"inputs": [[1.0], [2.0]]}).json() == {"outputs": [[2.5], [3.0]]}
    assert predict(rest, "half_plus_two", {"inputs": 3}).json() == {"outputs": 3.5}
    assert predict(rest, "half_plus_two", {"instances": [{"x": [1.0]}]}).json() == {"predictions": [[2.5]]}


def test_several_inputs_and_outputs_are_objects(rest: httpx.Client) -> None:
    rows = predict(rest, "two_inputs", {"instances": [{"a": 1, "b": 2}, {"a": 5, "b": 3}]}).json()
    assert rows == {"predictions": [{"difference": -1, "sum": 3}, {"difference": 2, "sum": 8}]}
    columns = predict(rest, "two_inputs", {"inputs": {"a": [1, 5], "b": [2, 3]}}).json()
    assert columns == {"outputs": {"difference": [-1, 2], "sum": [3, 8]}}


@pytest.mark.parametrize("path", ["/versions/123", "/VERSIONS/0123", ""])
def test_versions_are_reached_in_any_case_of_the_path(rest: httpx.Client, path: str) -> None:
    response = rest.post(f"/V1/Models/half_plus_two{path}:Predict", content='{"instances": [1]}')
    assert response.json() == {"predictions": [2.5]}


def test_numbers_are_written_as_tensorflow_serving_writes_them(rest: httpx.Client) -> None:
    def text(signature: str, values: str) -> str:
        response = predict(rest, "echo", f'{{"signature_name": "{signature}", "inputs": {values}}}')
        return response.text.partition(": ")[2].rstrip("\n}")

    assert text("float32", "[1, 0.1, 1e10, 16777217, 0.123456789]") == "[1.0, 0.1, 1e+10, 16777216.0, 0.123456791]"
    assert text("float64", "[1, 0.1, 0.12345678901234567]") == "[1.0, 0.1, 0.12345678901234566]"
    assert text("float32", "[NaN, Infinity, -Infinity]") == "[NaN, Infinity, -Infinity]"
    assert text("int64", "[9223372036854775807]") == "[9223372036854775807]"
    assert text("bool", "[true, false]") == "[true, false]"


def test_strings_and_binary_strings(rest: httpx.Client) -> None:
    body = {"instances": ["héllo", {"b64": "aGk="}]}
    expected = [{"text": "héllo!", "text_bytes": {"b64": "aMOpbGxv"}}, {"text": "hi!", "text_bytes": {"b64": "aGk="}}]
    assert predict(rest, "echo", body).json() == {"predictions": expected}


@pytest.mark.parametrize(
    ("signature", "value", "name"),
    [
        ("int32", "1.0", "int32"),
        ("int32", '"1"', "int32"),
        ("uint8", "300", "uint8"),
        ("float32", "true", "float"),
        ("bool", "1", "bool"),
        ("string", "1", "string"),
    ],
)
def test_a_value_of_another_type_is_refused(rest: httpx.Client, signature: str, value: str, name: str) -> None:
    message = error(predict(rest, "echo", f'{{"signature_name": "{signature}", "inputs": [{value}]}}'))
    kind = {"t": "Bool", '"': "String"}.get(value[0], "Number")
    assert message == f"JSON Value: {value} Type: {kind} is not of expected type: {name}"


def test_types_without_json_form_are_refused(rest: httpx.Client) -> None:
    response = predict(rest, "echo", {"signature_name": "complex64", "inputs": [1]})
    assert "not currently supported" in error(response, 501)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "JSON Parse error: The document is empty"),
        ("{}", "Missing 'inputs' or 'instances' key"),
        ('{"signature_name": 1, "instances": [1]}', "'signature_name' key must be a string value."),
        (
            '{"signature_name": "foo", "instances": [1]}',
            'Serving signature name: "foo" not found in signature def',
        ),
        ('{"instances": [[1, 2], [1, 2, 3]]}', "Expecting tensor size: 2 but got: 3"),
        ('{"instances": [{"q": 1}]}', "keys must be equal to: x"),
        ("{", "JSON Parse error: "),
        ("[" * 100_000, "JSON Parse error: "),
    ],
)
def test_bodies_that_cannot_be_used(rest: httpx.Client, body: str, message: str) -> None:
    assert message in error(predict(rest, "half_plus_two", body))


@pytest.mark.parametrize("body", ['{"instances": 1}', '{"instances": []}', '{"inputs": 1, "instances": [1]}', "[]"])
def test_other_bodies_that_cannot_be_used(rest: httpx.Client, body: str) -> None:
    assert error(predict(rest, "half_plus_two", body))


def test_all_keys_are_needed_in_a_row(rest: httpx.Client) -> None:
    assert error(predict(rest, "two_inputs", {"instances": [{"a": 1}]})).endswith("keys must be equal to: a,b")


def test_gzip_bodies_are_read(rest: httpx.Client) -> None:
    body = gzip.compress(b'{"instances": [1]}')
    assert predict(rest, "half_plus_two", body, headers={"Content-Encoding": "gzip"}).json() == {"predictions": [2.5]}
    assert error(predict(rest, "half_plus_two", b"no", headers={"Content-Encoding": "gzip"}), 500)


def test_chunked_bodies_are_read(rest: httpx.Client) -> None:
    response = rest.post("/v1/models/half_plus_two:predict", content=iter([b'{"instances"', b": [1]}"]))
    assert response.json() == {"predictions": [2.5]}


def test_unknown_models_versions_and_labels(rest: httpx.Client) -> None:
    body = {"instances": [1]}
    assert error(predict(rest, "nope", body), 404) == "Servable not found for request: Latest(nope)"
    missing = "Servable not found for request: Specific(half_plus_two, 7)"
    assert error(predict(rest, "half_plus_two/versions/7", body), 404) == missing
    label = "Unrecognized servable version label: canary"
    assert error(predict(rest, "half_plus_two/labels/canary", body)) == label
    assert error(rest.get("/v1/models/nope"), 404) == "Could not find any versions of model nope"


def test_status_is_that_of_get_model_status(rest: httpx.Client) -> None:
    row = {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in ("/v1/models/half_plus_two", "/v1/models/half_plus_two/versions/123", "/v1/models/half%5Fplus%5Ftwo"):
        assert rest.get(path).json() == {"model_version_status": [row]}


def test_metadata_shows_the_signatures(rest: httpx.Client) -> None:
    document = rest.get("/v1/models/half_plus_two/metadata").json()
    assert document["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "123"}
    signature = document["metadata"]["signature_def"]["signature_def"]["serving_default"]
    shape = {"dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}], "unknown_rank": False}
    assert signature["inputs"] == {"x": {"name": "x:0", "dtype": "DT_FLOAT", "tensor_shape": shape}}
    assert signature["method_name"] == "tensorflow/serving/predict"


def test_paths_that_lead_nowhere(rest: httpx.Client) -> None:
    assert rest.get("/").status_code == 404
    assert error(rest.get("/v1/foo")) == "Malformed request: GET /v1/foo"
    assert error(rest.get("/v1/models")) == "Missing model name in request."
    assert error(rest.post("/v1/models/half_plus_two")) == "Malformed request: POST /v1/models/half_plus_two"
    too_large = rest.get("/v1/models/half_plus_two/versions/9223372036854775808")
    assert (too_large.status_code, too_large.content) == (400, b"")


def test_classify_and_regress(rest: httpx.Client) -> None:
    body = {"signature_name": "regress_x_to_y", "examples": [{"x": 2.0}, {"x": [4.0]}]}
    assert rest.post("/v1/models/half_plus_two:regress", json=body).json() == {"results": [3.0, 4.0]}
    body["signature_name"] = "classify_x_to_y"
    expected = {"results": [[["3", 3.0]], [["4", 4.0]]]}
    assert rest.post("/v1/models/half_plus_two:classify", json=body).json() == expected
    shared = {"signature_name": "regress_x_to_y", "context": {"x": 6.0}, "examples": [{}]}
    assert rest.post("/v1/models/half_plus_two:regress", json=shared).json() == {"results": [5.0]}


def test_examples_that_cannot_be_used(rest: httpx.Client) -> None:
    for body in ({}, {"examples": []}, {"examples": [1]}, {"examples": [{"x": [1, "a"]}]}, {"examples": [{"x": None}]}):
        assert error(rest.post("/v1/models/half_plus_two:regress", json=body))


def test_metrics_are_counted_under_tensorflow_servings_names(rest: httpx.Client) -> None:
    predict(rest, "half_plus_two", {"instances": [1]})
    response = rest.get("/monitoring/prometheus/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    lines = response.text.splitlines()
    assert "# TYPE :tensorflow:serving:request_count counter" in lines
    assert any(
        line.startswith(':tensorflow:serving:request_count{model_name="half_plus_two",status="OK"} ') for line in lines
    )
    labels = '{model_name="half_plus_two",API="predict",entrypoint="REST",le="10"}'
    assert any(line.startswith(f":tensorflow:serving:request_latency_bucket{labels}") for line in lines)
    runtime = ':tensorflow:serving:runtime_latency_count{model_name="half_plus_two",API="Predict",runtime="TF1"}'
    assert any(line.startswith(runtime) for line in lines)


def test_float_text_reads_back_as_the_same_number() -> None:
    import numpy as np

    from serving.tfserving_rest.json_output import float_text

    for value in np.random.default_rng(0).standard_normal(2000).astype(np.float32):
        assert np.float32(float_text(float(value))) == value
    assert math.isnan(float(float_text(math.nan)))


def test_a_timeout_is_504(models_dir: Path, tmp_path: Path) -> None:
    arguments = ("--models", models_dir, "--rest_api_timeout_in_ms=200")
    with running(tmp_path, *arguments, rest=True) as server:
        server.wait_for("slow", 1)
        url = f"http://127.0.0.1:{server.rest_port}/v1/models/slow:predict"
        response = httpx.post(url, content='{"inputs": 2000000000}', timeout=30, trust_env=False)
        assert error(response, 504)
