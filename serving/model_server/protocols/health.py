"""grpc.health.v1.Health: serving from the moment that the port is open until the server drains.

TensorFlow Serving's is never aware of models: ask GetModelStatus for those. Source: grpc/doc/health-checking.md.
"""

import threading
from collections.abc import Iterator
from typing import Any

import grpc

from serving.model_server.versions.protos import HealthCheckRequest, HealthCheckResponse

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
SERVICES = frozenset({"", "ModelService", "PredictionService"})
WATCH_SECONDS = 1.0  # how often a watcher checks that its client is there


class Health:
    """The health of the server, and the gRPC service that reports it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._status = SERVING

    def drain(self) -> None:
        """Answer NOT_SERVING from now on."""
        with self._changed:
            self._status = NOT_SERVING
            self._changed.notify_all()

    def handler(self) -> grpc.GenericRpcHandler:
        """Make the service for a gRPC server."""
        encode, decode = HealthCheckResponse.SerializeToString, HealthCheckRequest.FromString
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check, decode, encode),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch, decode, encode),
        }
        return grpc.method_handlers_generic_handler("grpc.health.v1.Health", methods)

    def _check(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.service not in SERVICES:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return HealthCheckResponse(status=self._status)

    def _watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        if request.service not in SERVICES:
            yield HealthCheckResponse(status=SERVICE_UNKNOWN)
            return
        said = 0
        while context.is_active() and said != NOT_SERVING:
            with self._changed:
                if self._status == said:
                    self._changed.wait(WATCH_SECONDS)
                status = self._status
            if status != said:
                yield HealthCheckResponse(status=status)
                said = status
