"""The face service: one per machine, behind a Unix socket. It owns the face processes and the galleries in memory.

All gateway workers share it, so there is one queue, one copy of the vectors and no dlib in a gateway. It loads no dlib
itself: while its processes compute, it answers searches.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from serving.contract.errors import SightlineError
from serving.faces.galleries.gallery import Archive, Entry, Store
from serving.faces.service.messages import Message, error_message, pack, read_encodings, unpack
from serving.faces.service.pool import FacePool
from serving.local_calls.server import LocalServer

log = logging.getLogger(__name__)

PROCESS_OPS = ("find", "encode", "name")


class FaceService:
    """Answer the messages of `client.FaceClient`."""

    def __init__(self, pool: FacePool, store: "LazyStore") -> None:
        self._pool = pool
        self._lazy_store = store
        self._ops: dict[str, Callable[[Message], Any]] = {
            "galleries": lambda _: [asdict(info) for info in self._store.galleries()],
            "drop": lambda message: self._store.drop(**message.header["args"]),
            "forget": lambda message: self._store.forget(**message.header["args"]),
            "people": lambda message: [asdict(person) for person in self._store.people(**message.header["args"])],
            "count": lambda message: self._store.count(**message.header["args"]),
            "owner": lambda message: self._store.owner(**message.header["args"]),
            "audit": lambda _: [asdict(record) for record in self._store.audit()],
            "nearest": self._nearest,
            "enrol": self._enrol,
        }

    def answer(self, message: Message) -> Message:
        """Answer one request; an error becomes a message too."""
        op = message.header["op"]
        try:
            if op in PROCESS_OPS:
                return self._pool.call(message)
            return Message({"result": self._ops[op](message)})
        except SightlineError as exc:
            return error_message(exc)
        except Exception:  # the border: the caller needs an answer, and the service goes on
            log.exception("the operation %s failed unexpectedly", op)
            return error_message(SightlineError("The face service failed unexpectedly.", hint="See its log."))

    @property
    def _store(self) -> Store:
        return self._lazy_store.get()

    def _nearest(self, message: Message) -> Any:
        found = self._store.nearest(encodings=read_encodings(message.blobs[0]), **message.header["args"])
        return [[asdict(candidate) for candidate in row] for row in found]

    def _enrol(self, message: Message) -> Any:
        encodings, *photos = message.blobs
        entries = [
            Entry(
                person=row["person"],
                encoding=encoding,
                photo_sha256=row["photo_sha256"],
                quality=row["quality"],
                photo=photos[row["photo"]] if row["photo"] is not None else None,
            )
            for row, encoding in zip(message.header["entries"], read_encodings(encodings), strict=True)
        ]
        return self._store.enrol(entries=entries, **message.header["args"])


class LazyStore:
    """Open a store at its first use, and try again at each use until it opens.

    A database that is away, locked or damaged is then an error of each request and not the end of the process.
    """

    def __init__(self, open_one: Callable[[], Archive]) -> None:
        self._open_one = open_one
        self._store: Archive | None = None
        self._lock = threading.Lock()
        self._failure: SightlineError | None = None
        self._failed_at = 0.0

    def get(self) -> Archive:
        """Return the open store. Raises what opening it raises; callers that waited for one attempt share its error."""
        asked_at = time.monotonic()
        with self._lock:
            if self._store is None:
                if self._failure is not None and self._failed_at > asked_at:
                    raise type(self._failure)(self._failure.detail, hint=self._failure.hint)
                try:
                    self._store = self._open_one()
                except SightlineError as exc:
                    self._failure, self._failed_at = exc, time.monotonic()
                    raise
            return self._store

    def close(self) -> None:
        """Close the store if it was opened."""
        with self._lock:
            if self._store is not None:
                self._store.close()


class FaceServer(LocalServer):
    """Serve `service` at the Unix socket `path`. Raises PortTaken if another service answers there.

    An empty frame is answered by an empty one: the health check of whoever supervises the process.
    """

    def __init__(self, path: Path, service: FaceService) -> None:
        super().__init__(
            path,
            lambda data: pack(service.answer(unpack(data))) if data else b"",
            what="face service",
            setting="SIGHTLINE_FACES_SOCKET",
        )
