"""REST and Prometheus on one HTTP port, by the standard library's threading server."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc

from serving.backend.methods import (
    CLASSIFY,
    GET_MODEL_METADATA,
    GET_MODEL_STATUS,
    PREDICT,
    REGRESS,
    Method,
    Request,
    Response,
)
from serving.contract.errors import PortTaken
from serving.model_server.metrics import CONTENT_TYPE
from serving.model_server.service import ModelServerService
from serving.runtimes.status import CallError, cut
from serving.tfserving_rest import Reply, answer

logger = logging.getLogger(__name__)

ENTRYPOINT = "REST"
IDLE_SECONDS = 60.0  # an idle connection is closed after so long
MAX_BODY_BYTES = 2**31 - 1  # as many as over gRPC


class LocalBackend:
    """The transcoder's backend in this process. timeout_seconds: how long a call may take."""

    def __init__(self, service: ModelServerService, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._calls: dict[str, Callable[[Any, Any, float], Any]] = {
            PREDICT.path: service.predict,
            CLASSIFY.path: service.classify,
            REGRESS.path: service.regress,
            GET_MODEL_METADATA.path: lambda request, response, _: service.metadata(request, response),
            GET_MODEL_STATUS.path: lambda request, response, _: service.status(request, response),
        }

    def call(self, method: Method[Request, Response], request: Request) -> Response:
        response = method.response()
        try:
            self._calls[method.path](request, response, time.monotonic() + self._timeout_seconds)
        except CallError as exc:
            raise CallError(exc.code, cut(exc.message)) from exc
        return response


class HttpServer(ThreadingHTTPServer):
    """Listens at once; `serve_forever` answers. metrics_path: "" serves no metrics. Raises PortTaken."""

    daemon_threads = True
    allow_reuse_address = True
    disable_nagle_algorithm = True
    request_queue_size = 128

    def __init__(
        self, host: str, port: int, service: ModelServerService, timeout_seconds: float, metrics_path: str = ""
    ) -> None:
        self.service = service
        self.backend = LocalBackend(service, timeout_seconds)
        self.metrics_path = metrics_path
        self._idle = threading.Condition()
        self._running = 0
        try:
            super().__init__((host, port), _Handler)
        except OSError as exc:
            hint = "Choose another with --rest_api_port."
            raise PortTaken(f"cannot listen on {host}:{port}: {exc.strerror}", hint=hint) from exc

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Count a request as running, so that the server's end waits for it."""
        with self._idle:
            self._running += 1
        try:
            yield
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def wait_until_idle(self, seconds: float) -> None:
        """Block until no request is being answered, for so many seconds at most."""
        with self._idle:
            self._idle.wait_for(lambda: not self._running, seconds)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Ignore a client that goes away; anything else was answered with a 500 and logged."""
        logger.debug("connection from %s ended", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: HttpServer
    protocol_version = "HTTP/1.1"
    server_version = "Sightline"
    sys_version = ""
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == self.server.metrics_path:
            self._send(Reply(200, self.server.service.prometheus().encode(), CONTENT_TYPE))
        else:
            self._answer("GET", path, b"")

    def do_POST(self) -> None:
        body = self._body()
        if body is not None:
            self._answer(self.command, self.path.partition("?")[0], body)

    def do_PUT(self) -> None:
        self.do_POST()  # answered as malformed, after its body has been read

    def do_DELETE(self) -> None:
        self.do_POST()

    def _body(self) -> bytes | None:
        """Read the request's body; None when it was refused."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self._chunks()
        try:
            length = int(self.headers.get("Content-Length", "0"))
        except ValueError:
            length = -1
        if not 0 <= length <= MAX_BODY_BYTES:
            self.close_connection = True
            self._send(Reply(400, b'{"error": "Content-Length cannot be used"}'))
            return None
        return self.rfile.read(length)

    def _chunks(self) -> bytes | None:
        parts, total = [], 0
        while True:
            try:
                size = int(self.rfile.readline(128).partition(b";")[0], 16)
            except ValueError:
                size = -1
            total += size
            if size < 0 or total > MAX_BODY_BYTES:
                self.close_connection = True
                self._send(Reply(400, b'{"error": "the chunked body cannot be read"}'))
                return None
            if size == 0:
                break
            parts.append(self.rfile.read(size))
            self.rfile.readline(8)
        while self.rfile.readline(65537).strip():
            pass
        return b"".join(parts)

    def _answer(self, method: str, path: str, body: bytes) -> None:
        with self.server.running():
            self._send(self._reply(method, path, body))

    def _reply(self, method: str, path: str, body: bytes) -> Reply:
        started = time.perf_counter()
        try:
            reply = answer(self.server.backend, method, path, body, self.headers.get("Content-Encoding", ""))
        except Exception:  # logged, and answered without details
            logger.exception("a REST request failed that should not have")
            reply = Reply(
                500,
                b'{"error": "internal error of the model server; its log has the details"}',
                code=grpc.StatusCode.INTERNAL,
            )
        if reply.model:
            self.server.service.count(reply.model, reply.method, ENTRYPOINT, started, reply.code)
        return reply

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers_with(reply.body)

    def end_headers_with(self, body: bytes) -> None:
        """Write headers and body at once: two small packets would wait for each other."""
        self._headers_buffer.append(b"\r\n" + body)  # type: ignore[attr-defined]
        self.flush_headers()

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)
