"""/v1/...: TensorFlow Serving's REST API, for its clients."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
from flask import Blueprint, Response, g, request

from serving.backend.predictor import Call, ModelRef
from serving.contract.errors import (
    BadRequest,
    DeadlineExceeded,
    ModelError,
    RequestTooLarge,
    Unavailable,
    UnknownModel,
    UnsupportedContentEncoding,
)
from serving.gateway.guard import client_has_gone
from serving.gateway.http.openapi import JSON, Operation, described
from serving.gateway.http.requests import TIMEOUT_HEADER, read_body, read_call
from serving.gateway.http.schemas import (
    Problem,
    ServingColumns,
    ServingError,
    ServingExamples,
    ServingMetadata,
    ServingOutputs,
    ServingPredictions,
    ServingResults,
    ServingRows,
    ServingVersions,
)
from serving.gateway.settings import Settings
from serving.gateway.workers.pool import WorkPool
from serving.tfserving_rest import Backend, answer

UNAVAILABLE = 503


def _at(operation: Operation, method: str, ending: str, summary: str) -> Iterator[Operation]:
    """Yield the operation for the newest version, a version and a label."""
    for version in ("", "/versions/{version}", "/labels/{label}"):
        path = "/v1/models/{model}" + version + ending
        name = f"v1_{ending.strip('/:') or 'status'}"
        yield replace(operation, path=path, method=method, name=name, summary=summary)


ERRORS = (
    BadRequest,
    UnknownModel,
    RequestTooLarge,
    UnsupportedContentEncoding,
    Unavailable,
    DeadlineExceeded,
    ModelError,
)
ANSWERS = Operation(
    "v1",
    None,
    (TIMEOUT_HEADER,),
    scope="predict",
    errors=ERRORS,
    problem=ServingError | Problem,  # the transcoder's, and the gateway's own
)
ASKING = replace(ANSWERS, answer=ServingResults, body={JSON: ServingExamples})
OPERATIONS = (
    *_at(replace(ANSWERS, answer=ServingVersions), "GET", "", "List the versions and their states."),
    *_at(replace(ANSWERS, answer=ServingMetadata), "GET", "/metadata", "Describe the model's signatures."),
    *_at(
        replace(ANSWERS, answer=ServingPredictions | ServingOutputs, body={JSON: ServingRows | ServingColumns}),
        "POST",
        ":predict",
        "Run the model on tensors, by rows or by columns.",
    ),
    *_at(ASKING, "POST", ":classify", "Classify examples."),
    *_at(ASKING, "POST", ":regress", "Regress examples."),
)


def blueprint(backend_for: Callable[[Call], Backend], settings: Settings, pool: WorkPool) -> Blueprint:
    """Make the routes. backend_for: makes the transcoder's backend. pool: parses large JSON.

    Case is ignored, as in TensorFlow Serving.
    """
    routes = Blueprint("v1", __name__)

    @routes.get("/v1/<path:_rest>")
    @routes.get("/V1/<path:_rest>")
    @routes.post("/v1/<path:_rest>")
    @routes.post("/V1/<path:_rest>")
    @described(*OPERATIONS)
    def transcode(_rest: str) -> Response:
        """Transcode JSON to gRPC and back."""
        call = read_call(request.headers, settings.backend_timeout_seconds, client_has_gone())
        executor = pool.executor(call)
        with g.stages.timed("read"):
            body = read_body(request, executor) if request.method == "POST" else b""
        with g.stages.timed("predict"):
            path = _path_as_sent(request.environ)
            reply = answer(
                backend_for(call), request.method, path, body, limits=settings.json_limits, executor=executor
            )
        if reply.model and reply.code is grpc.StatusCode.OK:
            g.model, g.version = ModelRef(reply.model), ""
        headers = {"Retry-After": "1"} if reply.status == UNAVAILABLE else {}
        return Response(reply.body, reply.status, headers, content_type=reply.content_type)

    return routes


def _path_as_sent(environ: dict[str, Any]) -> str:
    """Return the path still percent-encoded: a slash in a name differs from one between names."""
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI") or request.path
    return str(raw).partition("?")[0]
