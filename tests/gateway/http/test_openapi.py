"""The specification, and the server held against it by schemathesis: what it does not promise is a failure."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import assume, given
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import negative_data_rejection

from serving.gateway.access.keys import new_key
from serving.gateway.app import create_app
from serving.gateway.http.openapi import specification, undescribed
from serving.gateway.settings import Settings
from tests.gateway.conftest import ColorPredictor, app_with_v1
from tests.gateway.specification import BEYOND_A_SCHEMA, INPUT, LIMITS, bounded, held_to, never_asked, red


def operations() -> Iterator[Any]:
    """Everything that the specification promises, without the faces: tests/faces holds them to it."""
    app = create_app(LIMITS, ColorPredictor(), backend=never_asked)
    for path, methods in specification(app, has_keys=False)["paths"].items():
        for method in methods:
            if not path.startswith("/faces"):
                yield pytest.param(path, method, id=f"{method} {path}")


@pytest.fixture(scope="module")
def api() -> Iterator[Any]:
    with app_with_v1(LIMITS, ColorPredictor()) as app:
        yield held_to(app)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.name.lower())
@pytest.mark.parametrize(("path", "method"), list(operations()))
def test_the_server_answers_as_it_promises(api: Any, path: str, method: str, mode: Any) -> None:
    operation = api[path][method]
    if mode.is_negative and not (operation.query or operation.headers or operation.body or "{version}" in path):
        pytest.skip("there is nothing that could be wrong")
    excluded = [*BEYOND_A_SCHEMA, *([not_a_server_error] if path.endswith("/ready") else [])]  # 503 is its answer

    @bounded
    @given(case=operation.as_strategy(generation_mode=mode), is_known=st.booleans())
    def promise(case: Any, is_known: bool) -> None:
        for name in ("model", "name"):
            if is_known and name in case.path_parameters:
                case.path_parameters[name] = "colors"
        if case.headers and is_short(case.headers.get("X-Request-Timeout")):
            case.headers.pop("X-Request-Timeout")  # a moment too short for any answer is a 504, rightly
        # TensorFlow Serving's answer to a number that is no int64 has no body, whatever its content type says
        assume(not (path.startswith("/v1") and re.fullmatch(r"\d{19,}", str(case.path_parameters.get("version")))))
        response = case.call()
        is_refused = 400 <= response.status_code < 500  # schemathesis knows some of these statuses, not 413
        beyond = [*excluded, negative_data_rejection] if is_refused else excluded
        case.validate_response(response, excluded_checks=beyond)

    promise()


def is_short(timeout: str | None) -> bool:
    """A number of seconds that a busy machine may not answer within."""
    try:
        return timeout is not None and 0 < float(timeout) < 30
    except ValueError:
        return False


TENSOR = [[[200, 0, 0]] * 2] * 2


@pytest.mark.parametrize(
    ("path", "query", "media_type", "body"),
    [
        ("/predict/{model}", {}, "application/octet-stream", red()),
        ("/predict/{model}", {"input": "png", "probabilities": "all"}, "application/octet-stream", red()),
        ("/predict/{model}", {"min_score": "1", "version": "1"}, "multipart/form-data", {"image": [red(), b"none"]}),
        (
            "/predict/{model}",
            {"top": "1"},
            "application/json",
            {"images": [{"b64": base64.b64encode(red()).decode()}, {"b64": "***", "name": "bad"}]},
        ),
        ("/v1/models/{model}:predict", {}, "application/json", {"instances": [TENSOR]}),
        ("/v1/models/{model}/versions/{version}:predict", {}, "application/json", {"inputs": [TENSOR]}),
        ("/v2/models/{name}/infer", {}, "application/json", {"inputs": [INPUT], "id": "x"}),
        ("/v2/models/{name}/versions/{version}/infer", {}, "application/json", {"inputs": [INPUT]}),
    ],
)
def test_what_is_answered_well_is_answered_as_promised(
    api: Any, path: str, query: dict[str, str], media_type: str, body: Any
) -> None:
    parameters = {"model": "colors", "name": "colors", "version": 1}
    parameters = {name: value for name, value in parameters.items() if f"{{{name}}}" in path}
    case = api[path]["post"].Case(path_parameters=parameters, query=query, body=body, media_type=media_type)
    assert case.call_and_validate(excluded_checks=BEYOND_A_SCHEMA).status_code == 200


def test_every_route_is_described(client: FlaskClient) -> None:
    assert undescribed(client.application) == []


def test_operations_have_names_of_their_own(client: FlaskClient) -> None:
    document = client.get("/openapi.json").get_json()
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))
    assert document["openapi"] == "3.1.0"


@pytest.mark.parametrize("in_file", [False, True])
def test_keys_and_scopes_are_in_the_specification_where_keys_are_needed(
    predictor: Any, tmp_path: Path, in_file: bool
) -> None:
    entry = new_key("a", ["predict"])[1]
    (tmp_path / "keys").write_text(entry)
    settings = Settings(api_keys_file=str(tmp_path / "keys")) if in_file else Settings(api_keys=entry)
    app = create_app(settings, predictor)
    document = app.test_client().get("/openapi.json").get_json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert document["paths"]["/predict/{model}"]["post"]["security"] == [{"key": ["predict"]}]
    assert document["paths"]["/metrics"]["get"]["security"] == [{"key": ["metrics"]}]
    assert "401" in document["paths"]["/predict/{model}"]["post"]["responses"]
    assert document["paths"]["/healthz"]["get"]["security"] == []
