"""/v1/...: TensorFlow Serving's REST API, so that its clients move over without a change."""

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, g, request

from serving.backend.predictor import Call, ModelRef
from serving.gateway.requests import read_body, read_call
from serving.gateway.settings import Settings
from serving.tfserving_rest import Backend, answer

UNAVAILABLE = 503


def blueprint(backend_for: Callable[[Call], Backend], settings: Settings) -> Blueprint:
    """The routes, with what makes the backend that the transcoder asks. Upper and lower case are one, as over there."""
    routes = Blueprint("v1", __name__)

    @routes.get("/v1/<path:_rest>")
    @routes.get("/V1/<path:_rest>")
    @routes.post("/v1/<path:_rest>")
    @routes.post("/V1/<path:_rest>")
    def transcode(_rest: str) -> Response:
        """Transcode JSON to gRPC and back."""
        call = read_call(request.headers, settings.backend_timeout_seconds)
        with g.stages.timed("read"):
            body = read_body(request, settings.max_request_bytes)
        with g.stages.timed("predict"):
            reply = answer(backend_for(call), request.method, _path_as_sent(request.environ), body)
        if reply.model and reply.code == 0:
            g.model, g.version = ModelRef(reply.model), ""
        headers = {"Retry-After": "1"} if reply.status == UNAVAILABLE else {}
        return Response(reply.body, reply.status, headers, content_type=reply.content_type)

    return routes


def _path_as_sent(environ: dict[str, Any]) -> str:
    """The path with its percent signs: they tell a slash in a name from one between names."""
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI") or request.path
    return str(raw).partition("?")[0]
