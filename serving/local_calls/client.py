"""The side that asks."""

import contextlib
import queue
import socket

from serving.local_calls.frames import receive_frame, send_frame


class NotReached(OSError):
    """No connection could be made: nothing was sent."""


class LocalClient:
    """Asks whoever listens at `path`, over connections that it keeps. Safe to share between threads."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._idle: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()

    def ask(self, data: bytes, timeout_seconds: float) -> bytes:
        """The answer's frame.

        Raises NotReached, TimeoutError where the other side is silent for so long, and ConnectionError where it ended.
        """
        connection = self._connection(timeout_seconds)
        try:
            send_frame(connection, data)
            answer = receive_frame(connection)
            if answer is None:
                raise ConnectionError("it closed the connection")
        except BaseException:  # whatever came between, the answer would be taken for that of the next request
            connection.close()
            raise
        self._idle.put(connection)
        return answer

    def close(self) -> None:
        """Close what is idle."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _connection(self, timeout_seconds: float) -> socket.socket:
        """One that is idle and still open, or a new one."""
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
        except OSError as exc:  # among them BlockingIOError: more connect at once than it takes
            connection.close()
            raise NotReached(str(exc)) from exc
        return connection


def _is_open(connection: socket.socket) -> bool:
    """Whether the other side has not closed an idle connection: it would then be readable."""
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False
