"""Traces for OpenTelemetry: a span per request, with a child per stage. The extra `otel`.

On where the environment names a receiver: OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT. The SDK
reads the other variables (names, sampling, batches, headers, certificates).
Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flask import Request

from serving.contract.errors import UsageError
from serving.prepare import Stages, Timed

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SERVICE = "sightline"
SERVER_ERROR = 500


class Tracing:
    """Make spans and hand them to the provider. One per process, created after the fork: it exports from a thread."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace = trace
        self._w3c = TraceContextTextMapPropagator()
        self._provider = provider
        self._tracer = provider.get_tracer(SERVICE)

    def close(self) -> None:
        """Export the remaining spans, and stop."""
        self._provider.shutdown()

    def begin(self, request: Request) -> "Span":
        """Start the request's span, a child of the caller's if it sent a `traceparent`.

        The span replaces the caller's in the request's headers, so that this one is passed on.
        """
        caller = self._w3c.extract({name.lower(): value for name, value in request.headers.items()})
        span = self._tracer.start_span(request.method, context=caller, kind=self._trace.SpanKind.SERVER)
        ours: dict[str, str] = {}
        self._w3c.inject(ours, self._trace.set_span_in_context(span))
        for name, value in ours.items():
            request.environ[f"HTTP_{name.upper()}"] = value
        return span

    def end(self, span: "Span", attributes: Mapping[str, Any], stages: "SpannedStages") -> None:
        """End the span of an answered request. attributes: those that are None are left out."""
        method, route, status = (attributes[name] for name in ("method", "route", "status"))
        span.update_name(f"{method} {route}".strip())
        semantic = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            **{f"sightline.{name}": attributes[name] for name in ("request_id", "model", "version", "code")},
        }
        span.set_attributes({name: value for name, value in semantic.items() if value is not None})
        if status >= SERVER_ERROR:
            span.set_status(self._trace.StatusCode.ERROR, attributes["code"])
        below = self._trace.set_span_in_context(span)
        for stage, start, stop in stages.intervals:
            self._tracer.start_span(stage, context=below, start_time=start).end(stop)
        span.end()


@dataclass(slots=True)
class SpannedStages(Stages):
    """Stages with the start and end of each, in nanoseconds since 1970."""

    intervals: list[tuple[str, int, int]] = field(default_factory=list)

    def timed(self, stage: str) -> Timed:
        return _SpannedTimed(self, stage)


class _SpannedTimed(Timed):
    __slots__ = ("_began", "_stages")

    def __init__(self, stages: SpannedStages, stage: str) -> None:
        super().__init__(stages.milliseconds, stage)
        self._stages = stages

    def __enter__(self) -> None:
        self._began = time.time_ns()
        super().__enter__()

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self._stages.intervals.append((self._stage, self._began, time.time_ns()))


def tracing_of(environ: Mapping[str, str]) -> Tracing | None:
    """Return what the environment configures; None without an endpoint or with OTEL_SDK_DISABLED=true.

    Raises UsageError where traces are configured and the extra is not installed.
    """
    is_off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    if is_off or not any(environ.get(name) for name in ENDPOINTS):
        return None
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as exc:
        raise UsageError(
            "Traces are configured (OTEL_EXPORTER_OTLP_ENDPOINT), and OpenTelemetry is not installed.",
            hint="Install the extra `otel`, or set OTEL_SDK_DISABLED=true.",
        ) from exc
    named = "service.name" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "") or "OTEL_SERVICE_NAME" in environ
    provider = TracerProvider(resource=Resource.create({} if named else {"service.name": SERVICE}))
    provider.add_span_processor(BatchSpanProcessor(_exporter(environ)))
    return Tracing(provider)


def _exporter(environ: Mapping[str, str]) -> Any:
    if next((environ[name] for name in PROTOCOLS if environ.get(name)), "") == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

    return Http()
