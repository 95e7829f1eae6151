"""Predict over a Unix socket, without gRPC, whose overhead in Python is more than a small model's run.

A request's frame: the seconds that its client waits, as a little-endian float64, then a PredictRequest. The answer's:
gRPC's status code as a little-endian int32, then a PredictResponse, or the status's message where the code is not 0.
An empty frame is a health check, answered with the code 0 alone.
"""

import contextlib
import logging
import struct
import time
from collections.abc import Sequence
from typing import Any, cast

import grpc

from serving.backend.backends import Backends
from serving.backend.methods import Method, Request, Response
from serving.backend.protos import wire_pb2 as wire
from serving.local_calls.client import LocalClient, NotReached
from serving.runtimes.status import CallError, deadline_exceeded, from_number

log = logging.getLogger(__name__)

SECONDS = struct.Struct("<d")
CODE = struct.Struct("<i")
OK = 0


class PredictSocket:
    """Call Predict of the model server that listens at `path`. Safe to share between threads; one per process."""

    def __init__(self, path: str) -> None:
        self._client = LocalClient(path)
        self._is_reached = True

    def predict(self, request: wire.PredictRequest, timeout: float) -> wire.PredictResponse:
        """Call Predict. timeout: seconds, above 0.

        Raises NotReached where nothing was sent and gRPC may be asked instead, and CallError.
        """
        try:
            answer = self._client.ask(SECONDS.pack(timeout) + request.SerializeToString(), timeout)
        except NotReached as exc:
            self._note(is_reached=False, why=str(exc))
            raise
        except TimeoutError as exc:
            raise deadline_exceeded() from exc
        except OSError as exc:
            raise CallError(grpc.StatusCode.UNAVAILABLE, f"{self._client.path}: {exc}") from exc
        self._note(is_reached=True)
        (code,) = CODE.unpack_from(answer)
        if code != OK:
            raise from_number(code, answer[CODE.size :].decode())
        return wire.PredictResponse.FromString(answer[CODE.size :])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _note(self, *, is_reached: bool, why: str = "") -> None:
        if is_reached != self._is_reached:
            self._is_reached = is_reached
            if is_reached:
                log.info("Predict goes over %s again", self._client.path)
            else:
                log.warning("Predict goes over gRPC: %s cannot be reached: %s", self._client.path, why)


class SocketBackends(Backends):
    """Backends of one model server on this machine: its Predict goes over the socket at `path`.

    Everything else, and Predict where the socket reaches nobody, goes over gRPC.
    """

    def __init__(self, targets: Sequence[str], path: str, **options: Any) -> None:
        super().__init__(targets, **options)
        self._socket = PredictSocket(path)

    def call(
        self,
        method: Method[Request, Response],
        request: Request,
        *,
        timeout: float,
        metadata: Sequence[tuple[str, str]] = (),
        prefer: str = "",
    ) -> Response:
        deadline = time.monotonic() + timeout
        if isinstance(request, wire.PredictRequest) and timeout > 0:
            with contextlib.suppress(NotReached):
                return cast(Response, self._socket.predict(request, timeout))
        left = max(0.0, deadline - time.monotonic())
        return super().call(method, request, timeout=left, metadata=metadata, prefer=prefer)

    def close(self) -> None:
        super().close()
        self._socket.close()
