"""TensorFlow Serving's services over gRPC, for the transcoder of its REST API."""

from serving.backend.backends import Backends
from serving.backend.methods import Method, Request, Response
from serving.backend.predictor import Call


class GrpcBackend:
    """A Backend of the transcoder, for one request. call: its deadline (it must have one), and what travels with it."""

    def __init__(self, backends: Backends, call: Call) -> None:
        self._backends = backends
        self._options = call

    def call(self, method: Method[Request, Response], request: Request) -> Response:
        timeout = self._options.seconds_left() or 0.0
        return self._backends.call(method, request, timeout=timeout, metadata=self._options.metadata)
