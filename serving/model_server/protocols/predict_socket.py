"""Predict over a Unix socket, for gateways on this machine. `serving.backend.predict_socket` says what travels."""

import threading
import time
from pathlib import Path

from google.protobuf.message import DecodeError

from serving.backend.predict_socket import CODE, OK, SECONDS
from serving.backend.protos import wire_pb2 as wire
from serving.local_calls.server import LocalServer
from serving.model_server.service import ModelServerService
from serving.runtimes.status import CallError, cut, invalid_argument

ENTRYPOINT = "SOCKET"


class PredictServer(LocalServer):
    """Answers at `path`. threads: calls at a time; the others wait. Raises PortTaken where another server does."""

    def __init__(self, path: Path, service: ModelServerService, threads: int) -> None:
        self._service = service
        self._turns = threading.BoundedSemaphore(threads)
        super().__init__(path, self._answer, what="model server", setting="--predict_socket_path")

    def _answer(self, frame: bytes) -> bytes:
        if not frame:  # a health check: answered whatever else waits
            return CODE.pack(OK)
        (seconds,) = SECONDS.unpack_from(frame)
        deadline = time.monotonic() + seconds
        try:
            with self._turns:
                response = self._predict(frame[SECONDS.size :], deadline)
        except CallError as exc:
            return CODE.pack(exc.number) + cut(exc.message).encode()
        return CODE.pack(OK) + response

    def _predict(self, data: bytes, deadline: float) -> bytes:
        try:
            request = wire.PredictRequest.FromString(data)
        except DecodeError as exc:
            raise invalid_argument("the frame holds no PredictRequest") from exc
        response = wire.PredictResponse()
        name = request.model_spec.name
        self._service.counted(name, "Predict", ENTRYPOINT, lambda: self._service.predict(request, response, deadline))
        return response.SerializeToString()
