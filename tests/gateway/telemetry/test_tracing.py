"""OpenTelemetry's spans, sent to a real receiver over HTTP."""

import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from serving.contract.errors import ModelServerUnavailable
from serving.gateway.app import create_app
from serving.gateway.settings import Settings
from serving.gateway.telemetry.tracing import tracing_of

collector = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="the extra `otel` is not installed"
)

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A collector's messages of resources and spans, in the order of their arrival."""
    got: list[Any] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.extend(collector.ExportTraceServiceRequest.FromString(body).resource_spans)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    yield got
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def spans_of(receiver: list[Any], predictor: Any) -> Callable[..., list[Any]]:
    """Sends one picture, and tells the spans that the collector got."""

    def ask(picture: bytes, **headers: str) -> list[Any]:
        tracing = tracing_of(os.environ)
        assert tracing is not None
        client = create_app(Settings(), predictor, tracing=tracing).test_client()
        client.get("/healthz")  # not worth a span
        client.post("/predict/colors", data=picture, content_type="image/png", headers=headers)
        tracing.close()
        return [span for resource in receiver for scope in resource.scope_spans for span in scope.spans]

    return ask


def attributes(span: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


def test_a_request_is_a_span_with_its_stages_below(
    spans_of: Callable[..., list[Any]], receiver: list[Any], predictor: Any, red: bytes
) -> None:
    *stages, whole = spans_of(red, traceparent=CALLER, **{"X-Request-ID": "abc"})
    assert whole.name == "POST /predict/<model>"
    assert (whole.trace_id.hex(), whole.parent_span_id.hex()) == tuple(CALLER.split("-")[1:3])
    assert attributes(whole) == {
        "http.request.method": "POST",
        "http.route": "/predict/<model>",
        "http.response.status_code": 200,
        "sightline.request_id": "abc",
        "sightline.model": "colors",
        "sightline.version": "1",
    }
    assert [span.name for span in stages] == ["read", "decode", "preprocess", "predict", "postprocess"]
    for span in stages:
        assert (span.trace_id, span.parent_span_id) == (whole.trace_id, whole.span_id)
        assert whole.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= whole.end_time_unix_nano
    names = {pair.key: pair.value.string_value for pair in receiver[0].resource.attributes}
    assert names["service.name"] == "sightline"
    passed_on = dict(predictor.calls[0].metadata)["traceparent"]
    assert passed_on == f"00-{whole.trace_id.hex()}-{whole.span_id.hex()}-01"


def test_without_a_caller_a_trace_begins_here(spans_of: Callable[..., list[Any]], red: bytes) -> None:
    *_, whole = spans_of(red)
    assert whole.parent_span_id == b""


def test_a_failure_of_ours_is_a_failed_span(spans_of: Callable[..., list[Any]], predictor: Any, red: bytes) -> None:
    predictor.fails = ModelServerUnavailable("away")
    *_, whole = spans_of(red)
    assert (whole.status.code, whole.status.message) == (2, "model_server_unavailable")
    assert attributes(whole)["sightline.code"] == "model_server_unavailable"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_it_is_off_unless_the_environment_asks_for_it(environ: dict[str, str]) -> None:
    assert tracing_of(environ) is None
