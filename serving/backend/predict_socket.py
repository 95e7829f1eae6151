"""Predict without gRPC, of a model server on this machine: what gRPC costs in Python is more than a small model's run.

A request's frame: the seconds that its client waits, as a little-endian float64, then a PredictRequest. The answer's:
gRPC's status code as a little-endian int32, then a PredictResponse, or the status's message where the code is not 0.
"""

import logging
import struct
from typing import Any

import grpc

from serving.backend.protos import wire_pb2 as wire
from serving.local_calls.client import LocalClient, NotReached
from serving.runtimes.status import STATUS_CODES

log = logging.getLogger(__name__)

SECONDS = struct.Struct("<d")
CODE = struct.Struct("<i")
OK = 0


class PredictFailed(grpc.RpcError):  # type: ignore[misc]
    """What gRPC would have raised."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


class PredictSocket:
    """Calls Predict of the model server that listens at `path`. Safe to share between threads; one per process."""

    def __init__(self, path: str) -> None:
        self._client = LocalClient(path)
        self._is_reached = True

    def call(self, request: wire.PredictRequest, response: Any, timeout: float) -> Any:
        """As a gRPC method. response: class of the answer; timeout: seconds, above 0.

        Raises NotReached where nothing was sent and gRPC may be asked instead, and grpc.RpcError.
        """
        try:
            answer = self._client.ask(SECONDS.pack(timeout) + request.SerializeToString(), timeout)
        except NotReached as exc:
            self._note(is_reached=False, why=str(exc))
            raise
        except TimeoutError as exc:
            raise PredictFailed(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from exc
        except OSError as exc:
            raise PredictFailed(grpc.StatusCode.UNAVAILABLE, f"{self._client.path}: {exc}") from exc
        self._note(is_reached=True)
        (code,) = CODE.unpack_from(answer)
        if code != OK:
            raise PredictFailed(STATUS_CODES.get(code, grpc.StatusCode.UNKNOWN), answer[CODE.size :].decode())
        return response.FromString(answer[CODE.size :])

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def _note(self, *, is_reached: bool, why: str = "") -> None:
        if is_reached != self._is_reached:
            self._is_reached = is_reached
            if is_reached:
                log.info("Predict goes over %s again", self._client.path)
            else:
                log.warning("Predict goes over gRPC: %s cannot be reached: %s", self._client.path, why)
