import io
import json
import logging
from typing import Any

import pytest
from flask.testing import FlaskClient

from serving.backend.predictor import ModelRef, ServedModel
from serving.contract.errors import ModelServerUnavailable
from serving.contract.logs import FIELDS, JsonFormatter, TextFormatter
from serving.gateway.telemetry.metrics import Metrics
from tests.cards import COLORS
from tests.gateway.exposition import samples


def post(client: FlaskClient, *pictures: bytes, model: str = "colors") -> None:
    client.post(f"/predict/{model}", data={"image": [(io.BytesIO(data), "x") for data in pictures]})


def test_requests_and_pictures_are_counted_by_what_answered(client: FlaskClient, red: bytes) -> None:
    post(client, red, b"no picture", red)
    post(client, red)
    told = samples(client.get("/metrics").text)
    assert told["sightline_request_total", "/predict/<model>", "200", "colors", "1"] == 2
    assert told["sightline_pictures_total", "colors", "answered"] == 3
    assert told["sightline_pictures_total", "colors", "refused"] == 1
    assert told["sightline_request_seconds_count", "/predict/<model>"] == 2
    for stage in ("read", "decode", "preprocess", "predict", "postprocess"):
        assert told[f"request_{stage}_seconds_count", "colors"] == 2


def test_what_a_client_makes_up_becomes_no_label(client: FlaskClient, red: bytes) -> None:
    for name in ("dogs", "cats", "mice"):
        post(client, red, model=name)
        client.get(f"/{name}")
    text = client.get("/metrics").text
    assert "dogs" not in text
    assert samples(text)["sightline_request_total", "/predict/<model>", "404", "", ""] == 3
    assert samples(text)["sightline_request_errors_total", "unknown_model"] == 3


def test_failures_are_counted_by_their_code_and_nothing_stays_in_progress(
    client: FlaskClient, red: bytes, predictor: Any
) -> None:
    predictor.fails = ModelServerUnavailable("away")
    post(client, red)
    told = samples(client.get("/metrics").text)
    assert told["sightline_request_errors_total", "model_server_unavailable"] == 1
    assert told["sightline_request_in_progress",] == 1  # the one that asks


def test_merged_calls_are_told() -> None:
    metrics = Metrics()
    metrics.rpc(ServedModel(ModelRef("colors"), 1, COLORS), 3, 7)
    told = samples(metrics.text()[0].decode())
    assert (told["sightline_rpc_requests_sum", "colors"], told["sightline_rpc_pictures_sum", "colors"]) == (3, 7)


def test_a_request_is_one_line_of_json_without_what_it_holds(
    client: FlaskClient, red: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "serving.gateway.app"):
        client.post("/predict/colors", data=red, content_type="image/png", headers={"X-Request-ID": "abc"})
    (record,) = caplog.records
    line = json.loads(JsonFormatter().format(record))
    assert {name: line[name] for name in ("level", "message", "request_id", "method", "path", "status")} == {
        "level": "INFO",
        "message": "request",
        "request_id": "abc",
        "method": "POST",
        "path": "/predict/colors",
        "status": 200,
    }
    assert (line["model"], line["version"]) == ("colors", 1)
    assert set(line["milliseconds"]) == {"total", "read", "decode", "preprocess", "predict", "postprocess"}
    assert "request_id=abc" in TextFormatter().format(record)
    assert "predict=" in TextFormatter().format(record)


def test_a_traceback_is_a_field() -> None:
    try:
        raise ZeroDivisionError("oops")
    except ZeroDivisionError as exc:
        info = (type(exc), exc, exc.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "", 0, "it %s", ("broke",), info)
    record.__dict__[FIELDS] = {"request_id": "1"}
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "it broke"
    assert "ZeroDivisionError: oops" in line["traceback"]
