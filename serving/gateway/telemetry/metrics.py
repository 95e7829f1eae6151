"""Metrics for Prometheus, summed over all workers: each writes files that all read.

prometheus_client reads PROMETHEUS_MULTIPROC_DIR at import: gunicorn.conf.py sets it before.
"""

import os
from collections.abc import Mapping
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from serving.backend.predictor import ServedModel
from serving.gateway.telemetry import metric_files

metric_files.install()

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)
STAGES = {
    "read": "reading the request's images",
    "decode": "decoding images",
    "preprocess": "preprocessing images",
    "predict": "waiting for the model server, merging included",
    "postprocess": "building the answer",
    "faces": "finding and comparing faces",
}


class Metrics:
    """The gateway's metrics, one object per application. Labels hold served names only, never those of requests."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._children: dict[tuple[Any, tuple[str, ...]], Any] = {}
        self._incomplete = Gauge(
            "sightline_metrics_incomplete",
            "1 where a process found no room for its metrics.",
            registry=self._registry,
            multiprocess_mode="livemax",
        )
        self._incomplete.set(0)
        labels = ("endpoint", "model", "version", "http_response_code")
        self._requests = Counter("sightline_request", "Requests answered.", labels, registry=self._registry)
        self._seconds = self._histogram("sightline_request_seconds", "Seconds of whole requests.", SECONDS, "endpoint")
        self._stages = {
            stage: self._histogram(f"request_{stage}_seconds", f"Seconds of {text}.", SECONDS, "model")
            for stage, text in STAGES.items()
        }
        self._errors = Counter(
            "sightline_request_errors", "Requests that failed, by the error's code.", ("code",), registry=self._registry
        )
        self._pictures = Counter(
            "sightline_pictures", "Images classified or refused.", ("model", "outcome"), registry=self._registry
        )
        self._in_progress = Gauge(
            "sightline_request_in_progress",
            "Requests being answered.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._rpc_requests = self._histogram(
            "sightline_rpc_requests", "Requests that share one call to the model server.", COUNTS, "model"
        )
        self._rpc_pictures = self._histogram(
            "sightline_rpc_pictures", "Images in one call to the model server.", COUNTS, "model"
        )

        self._addresses = Gauge(
            "sightline_backend_addresses",
            "Addresses of a model server.",
            ("backend",),
            registry=self._registry,
            multiprocess_mode="livemax",
        )
        self._addresses_ready = Gauge(
            "sightline_backend_addresses_ready",
            "Addresses of a model server that answer, in the worker that sees the fewest.",
            ("backend",),
            registry=self._registry,
            multiprocess_mode="livemin",
        )
        self._retries = Counter(
            "sightline_backend_retries", "Calls retried on another backend.", registry=self._registry
        )

    def backend(self, target: str, ready: int, known: int) -> None:
        """Set the addresses of a model server."""
        self._addresses.labels(target).set(known)
        self._addresses_ready.labels(target).set(ready)

    def retried(self) -> None:
        """Count a call that is retried on another backend."""
        self._retries.inc()

    def begin(self) -> None:
        """Count a request as in progress."""
        self._in_progress.inc()

    def end(self) -> None:
        """Count a request as no longer in progress."""
        self._in_progress.dec()

    def request(
        self, endpoint: str, status: int, seconds: float, *, model: str, version: str, code: str | None
    ) -> None:
        """Count an answered request. model, version: those that answered, or "". code: the error's, if any."""
        if metric_files.is_lost():
            self._incomplete.set(1)
        self._of(self._requests, endpoint, model, version, str(status)).inc()
        self._of(self._seconds, endpoint).observe(seconds)
        if code is not None:
            self._of(self._errors, code).inc()

    def stages(self, model: str, milliseconds: Mapping[str, float]) -> None:
        """Record the duration of each stage of a request."""
        for stage, spent in milliseconds.items():
            if stage in self._stages:
                self._of(self._stages[stage], model).observe(spent / 1000)

    def pictures(self, model: str, answered: int, refused: int) -> None:
        """Count the images of a request by their outcome."""
        for outcome, count in (("answered", answered), ("refused", refused)):
            if count:
                self._of(self._pictures, model, outcome).inc(count)

    def rpc(self, served: ServedModel, requests: int, pictures: int) -> None:
        """Record a call to the model server before it is sent."""
        self._of(self._rpc_requests, served.ref.name).observe(requests)
        self._of(self._rpc_pictures, served.ref.name).observe(pictures)

    def _of(self, metric: Any, *labels: str) -> Any:
        """Return the metric with these labels, cached: prometheus_client takes longer to look it up than to count."""
        key = (metric, labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def text(self) -> tuple[bytes, str]:
        """Return the metrics of all workers in Prometheus's text format, and its content type."""
        registry = self._registry
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        text = generate_latest(registry)
        if metric_files.is_lost() and b"\nsightline_metrics_incomplete 1" not in text:  # no room for this either
            text += b"# TYPE sightline_metrics_incomplete gauge\nsightline_metrics_incomplete 1.0\n"
        return text, CONTENT_TYPE_LATEST

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], label: str) -> Histogram:
        return Histogram(name, text, (label,), buckets=buckets, registry=self._registry)
