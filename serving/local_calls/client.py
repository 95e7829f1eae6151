"""The client side of local calls."""

import contextlib
import queue
import socket

from serving.local_calls.frames import receive_frame, send_frame


class NotReached(OSError):
    """No connection could be made: nothing was sent."""


class LocalClient:
    """Call whoever listens at `path`, over connections that are kept. Safe to share between threads."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._idle: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()

    def ask(self, data: bytes, timeout_seconds: float) -> bytes:
        """Send a frame and return the answer's.

        Raises NotReached, TimeoutError where the other side is silent for so long, and ConnectionError where it ended.
        """
        connection = self._connection(timeout_seconds)
        try:
            send_frame(connection, data)
            answer = receive_frame(connection)
            if answer is None:
                raise ConnectionError("it closed the connection")
        except BaseException:  # whatever happened: a late answer would be taken for the next request's
            connection.close()
            raise
        self._idle.put(connection)
        return answer

    def close(self) -> None:
        """Close the idle connections."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _connection(self, timeout_seconds: float) -> socket.socket:
        """Take a connection that is idle and still open, or open one."""
        with contextlib.suppress(queue.Empty):
            while True:
                idle = self._idle.get_nowait()
                if _is_open(idle):
                    idle.settimeout(timeout_seconds)
                    return idle
                idle.close()
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout_seconds)
        try:
            connection.connect(self.path)
        except OSError as exc:  # BlockingIOError among them: its backlog is full
            connection.close()
            raise NotReached(str(exc)) from exc
        return connection


def _is_open(connection: socket.socket) -> bool:
    """Return False where the other side has closed an idle connection, which is then readable."""
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False
