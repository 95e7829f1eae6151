"""GET /metrics: metrics for Prometheus."""

from flask import Blueprint, Response

from serving.gateway.http.openapi import Operation, described
from serving.gateway.telemetry.metrics import Metrics

NUMBERS = Operation("service", None, also=("text/plain",), scope="metrics")


def blueprint(metrics: Metrics) -> Blueprint:
    """Make the route."""
    routes = Blueprint("metrics", __name__)

    @routes.get("/metrics")
    @described(NUMBERS)
    def scrape() -> Response:
        """Return the metrics of all workers, uncompressed."""
        text, content_type = metrics.text()
        return Response(text, content_type=content_type)

    return routes
