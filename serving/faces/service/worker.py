"""A face process: dlib, one request at a time. `pool` starts it."""

import contextlib
import os
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection

from serving.contract.errors import SightlineError
from serving.contract.image_limits import ImageLimits
from serving.faces.dlib.detector import DlibDetector
from serving.faces.dlib.encoder import DlibEncoder
from serving.faces.dlib.weights import encoder_name
from serving.faces.service.messages import (
    Message,
    detection_message,
    encodings_blob,
    error_message,
    pack,
    read_chips,
    unpack,
)

NICENESS = 10  # predictions go first


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """limits, max_side: see DlibDetector. preload: load dlib's models before the first photo."""

    limits: ImageLimits
    max_side: int
    preload: bool


class Worker:
    """Answer requests; the first that needs one of dlib's models loads it."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings

    def answer(self, message: Message) -> Message:
        """Answer one request; a Sightline error becomes a message too."""
        try:
            return getattr(self, f"_{message.header['op']}")(message)  # type: ignore[no-any-return]
        except SightlineError as exc:
            return error_message(exc)

    def preload(self) -> None:
        """Load the models that HOG detection and encoding need."""
        _ = self._detector, self._encoder

    @cached_property
    def _detector(self) -> DlibDetector:
        return DlibDetector(self._settings.limits, self._settings.max_side)

    @cached_property
    def _encoder(self) -> DlibEncoder:
        return DlibEncoder()

    def _find(self, message: Message) -> Message:
        header = message.header
        return detection_message(self._detector.find(message.blobs[0], header["model"], retry=header["retry"]))

    def _encode(self, message: Message) -> Message:
        return Message({}, [encodings_blob(self._encoder.encode(read_chips(message.blobs[0])))])

    def _name(self, message: Message) -> Message:  # noqa: ARG002
        name = encoder_name()
        return Message({"name": name.name, "version": name.version})


def work(connection: Connection, settings: WorkerSettings) -> None:
    """Run the process: answer until the other end of the pipe is closed."""
    os.nice(NICENESS)
    worker = Worker(settings)
    if settings.preload:
        with contextlib.suppress(SightlineError):  # the first request will report it
            worker.preload()
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            connection.send_bytes(pack(worker.answer(unpack(connection.recv_bytes()))))
