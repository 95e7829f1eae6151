"""The server side of local calls."""

import contextlib
import logging
import os
import socket
import socketserver
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving.contract.errors import PortTaken
from serving.local_calls.frames import receive_frame, send_frame

log = logging.getLogger(__name__)


class _Connection(socketserver.BaseRequestHandler):
    """Answer the requests of one connection in turn, until it is closed."""

    server: "LocalServer"

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while (data := receive_frame(self.request)) is not None:
                send_frame(self.request, self.server.answer(data))


class LocalServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Listen at `path` for this user alone, a thread for each connection. Raises PortTaken where another does.

    answer: maps a frame to its answer's. what, setting: names of the server and of the path's setting, for messages.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: Path, answer: Callable[[bytes], bytes], *, what: str, setting: str) -> None:
        self.path = path
        self.answer = answer
        self._ended = threading.Condition()
        self._open: set[Any] = set()
        _clear(path, what, setting)
        before = os.umask(0o177)
        try:
            super().__init__(str(path), _Connection)
        except OSError as exc:
            raise PortTaken(f"The {what} cannot listen at {path}: {exc}", hint=f"Set {setting}.") from exc
        finally:
            os.umask(before)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._ended:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._ended:
            self._open.discard(request)
            self._ended.notify_all()

    def drain(self, seconds: float) -> None:
        """Accept nothing more and wait so long for the requests that run. Not for serve_forever's own thread."""
        self.shutdown()
        with self._ended:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)  # requests that were sent are still read and answered
            self._ended.wait_for(lambda: not self._open, seconds)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Log a request that cannot be read; only its connection ends."""
        log.exception("a connection to %s ended", self.path)

    def server_close(self) -> None:
        super().server_close()
        self.path.unlink(missing_ok=True)


def _clear(path: Path, what: str, setting: str) -> None:
    """Remove the socket of a process that is gone."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise PortTaken(f"{path} is there and is no socket: the {what} cannot listen there.", hint=f"Set {setting}.")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as exc:
            raise PortTaken(f"{path} cannot be asked whose it is: {exc.strerror}.", hint=f"Set {setting}.") from exc
    raise PortTaken(f"Another {what} listens at {path}.", hint=f"Stop it, or set {setting}.")
