"""The budget of bytes that a process holds for its requests: uploads that stall give way to those that move."""

import io
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from serving.contract.errors import Overloaded
from serving.gateway.workers.memory import FreedMemory

STEP = 262_144  # bytes; counted before they are read


class Body(Protocol):
    """A request's body. `read` waits for so many bytes, and returns fewer only at its end."""

    def read(self, size: int) -> bytes: ...


@dataclass(slots=True, eq=False)
class Upload:
    """The bytes of one request. moved: monotonic seconds of its last bytes; connection: its client's socket."""

    connection: Any = None
    size: int = 0
    moved: float = field(default_factory=time.monotonic)
    is_refused: bool = False


class Uploads:
    """The bytes of all requests of a process, from before they are read until the requests have ended.

    most: bytes. Past it, uploads that have been waiting for their client for longest are refused. freed: counts the
    bytes of requests that have ended.
    """

    def __init__(self, most: int, freed: FreedMemory) -> None:
        self._most = most
        self._freed = freed
        self._lock = threading.Lock()
        self._held = 0
        self._receiving: set[Upload] = set()

    def receive(self, body: Body, length: int | None, limit: int, connection: Any) -> tuple[bytes, Upload]:
        """Read a body. length: bytes; None: in chunks. limit: most bytes of one body.

        Raises Overloaded when it has to give way, RequestEntityTooLarge, and ClientDisconnected where it is cut off.
        """
        if length is not None and length > limit:
            raise RequestEntityTooLarge
        upload = Upload(connection)
        with self._lock:
            self._receiving.add(upload)
        try:
            data = self._read(body, limit + 1 if length is None else length, upload)
            if len(data) > limit:
                raise RequestEntityTooLarge
            if upload.is_refused:
                raise self._overloaded()
            if length is not None and len(data) < length:
                raise ClientDisconnected
        except BaseException:
            self._end_of_input(upload)
            self.give_back(upload)
            raise
        self._end_of_input(upload)
        return data, upload

    def give_back(self, upload: Upload) -> None:
        """Count the bytes of a request that has ended no longer."""
        with self._lock:
            size, upload.size = upload.size, 0
            self._held -= size
        self._freed.add(size)

    def _read(self, body: Body, most: int, upload: Upload) -> bytes:
        if most <= STEP:
            self._take(upload, most)
            return body.read(most)
        read = io.BytesIO()  # grows in place and is not copied at the end
        while not upload.is_refused and most > 0:
            step = min(STEP, most)
            self._take(upload, step)
            piece = body.read(step)
            upload.moved = time.monotonic()
            read.write(piece)
            most -= len(piece)
            if len(piece) < step:
                break
        return read.getvalue()

    def _take(self, upload: Upload, size: int) -> None:
        with self._lock:
            upload.size += size
            self._held += size
            while self._held > self._most:
                stalled = min(self._receiving, key=lambda each: each.moved)
                if len(self._receiving) == 1 or stalled is upload:
                    raise self._overloaded()
                self._refuse(stalled)

    def _refuse(self, upload: Upload) -> None:
        upload.is_refused = True
        self._receiving.remove(upload)
        self._held -= upload.size
        upload.size = 0
        if upload.connection is not None:
            upload.connection.shutdown(socket.SHUT_RD)

    def _end_of_input(self, upload: Upload) -> None:
        with self._lock:
            self._receiving.discard(upload)

    def _overloaded(self) -> Overloaded:
        return Overloaded(
            f"The requests of this process have {self._most:,} bytes, the limit (SIGHTLINE_MAX_BYTES_IN_FLIGHT).",
            hint="Try again in a moment.",
        )
