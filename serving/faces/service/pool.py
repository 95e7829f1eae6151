"""The face processes and the queue in front of them.

dlib holds the GIL for 74 ms a face and a core for tenths of a second, so it runs in processes of its own. They are
spawned: a fork of a process that ran dlib's CNN hangs. The queue is bounded: when it is full, the answer is Overloaded
at once. A process that dies is replaced and its request tried once more; one that misses a deadline is killed.
"""

import logging
import multiprocessing
import queue
import threading
import time
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from serving.contract.errors import DeadlineExceeded, FaceProcessDied, FacesUnavailable, Overloaded
from serving.contract.image_limits import ImageLimits
from serving.faces.encoder import EncoderName
from serving.faces.face import Chips, Detection, DetectorModel, Encodings
from serving.faces.service.messages import (
    Message,
    chips_blob,
    pack,
    raise_if_error,
    read_detection,
    read_encodings,
    unpack,
)
from serving.faces.service.worker import WorkerSettings, work
from serving.faces.settings import FaceSettings

log = logging.getLogger(__name__)

TRIES = 2


def face_pool(settings: FaceSettings, limits: ImageLimits) -> "FacePool":
    """Start the face processes that the settings ask for."""
    return FacePool(
        WorkerSettings(limits, settings.max_side, settings.preload),
        processes=settings.processes,
        waiting=settings.waiting,
        timeout_seconds=settings.timeout_seconds,
    )


@dataclass(slots=True)
class _Job:
    """A request. deadline: in seconds of time.monotonic()."""

    request: bytes
    deadline: float
    answer: "Future[bytes]" = field(default_factory=Future)


class FacePool:
    """Find and encode faces in `processes` processes; at most `waiting` requests queue for one.

    timeout_seconds: deadline of a request, from the call to the answer. Safe to share between threads.
    """

    def __init__(self, settings: WorkerSettings, *, processes: int, waiting: int, timeout_seconds: float) -> None:
        self._settings = settings
        self._timeout_seconds = timeout_seconds
        self._jobs: queue.Queue[_Job | None] = queue.Queue(processes + waiting)
        self._room = threading.BoundedSemaphore(processes + waiting)
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"face-process-{number}", daemon=True)
            for number in range(processes)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the processes. Requests that still wait get FacesUnavailable."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def find(self, data: bytes, model: DetectorModel = "hog", *, retry: bool = True) -> Detection:
        """Find all faces of a photo file. See `DlibDetector.find`.

        Raises Overloaded, DeadlineExceeded, FaceProcessDied, FacesNotInstalled, and what decoding raises.
        """
        return read_detection(self.call(Message({"op": "find", "model": model, "retry": retry}, [data])))

    def encode(self, chips: Chips) -> Encodings:
        """Encode chips with dlib. Returns float32 (n, 128). Raises what `find` raises."""
        return read_encodings(self.call(Message({"op": "encode"}, [chips_blob(chips)])).blobs[0])

    @property
    def name(self) -> EncoderName:
        """The encoder whose vectors `encode` returns."""
        return EncoderName(**self.call(Message({"op": "name"})).header)

    def call(self, message: Message) -> Message:
        """Send any request that `Worker` answers. Raises what `find` raises."""
        if self._closed:
            raise FacesUnavailable("The face processes are being stopped.")
        if not self._room.acquire(blocking=False):
            raise Overloaded(
                f"{self._jobs.maxsize} photos are already waiting or in work.",
                hint="Try again in a moment, or raise SIGHTLINE_FACES_WAITING or SIGHTLINE_FACES_PROCESSES.",
            )
        job = _Job(pack(message), time.monotonic() + self._timeout_seconds)
        job.answer.add_done_callback(lambda _: self._room.release())
        self._jobs.put(job)
        try:
            return raise_if_error(unpack(job.answer.result(self._timeout_seconds)))
        except FutureTimeout as exc:
            job.answer.cancel()  # nobody waits for it: if it is not being worked on, it never will be
            raise self._deadline_error() from exc
        except CancelledError as exc:
            raise FacesUnavailable("The face processes are being stopped.") from exc

    def _deadline_error(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"The photo was not done within {self._timeout_seconds:g} s (SIGHTLINE_FACES_TIMEOUT_SECONDS).",
            hint="Try again when there is less to do.",
        )

    # ---- one thread for each process

    def _serve(self) -> None:
        process = _FaceProcess(self._settings)
        while (job := self._jobs.get()) is not None:
            if self._closed:
                job.answer.cancel()
            elif job.answer.set_running_or_notify_cancel():
                process = self._work(process, job)
        process.end()

    def _work(self, process: "_FaceProcess", job: _Job) -> "_FaceProcess":
        """Do the job, with a second process if the first dies. Returns the process that is alive afterwards."""
        for _ in range(TRIES):
            try:
                job.answer.set_result(process.ask(job.request, job.deadline))
                return process
            except TimeoutError:  # a subclass of OSError, so it comes first
                log.warning("A face process was killed: it still worked on a photo whose deadline had passed.")
                process.end()
                job.answer.set_exception(self._deadline_error())
                return _FaceProcess(self._settings)
            except (EOFError, OSError):
                log.error("A face process died at a photo; another one tries it.")
                process.end()
                process = _FaceProcess(self._settings)
        job.answer.set_exception(
            FaceProcessDied(f"{TRIES} face processes died at this photo.", hint="Check that there is enough memory.")
        )
        return process


class _FaceProcess:
    """A face process and the pipe to it."""

    def __init__(self, settings: WorkerSettings) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._pipe: Connection = ours
        self._process: BaseProcess = context.Process(target=work, args=(theirs, settings), daemon=True)
        self._process.start()
        theirs.close()  # so that the pipe breaks when the process ends

    def ask(self, request: bytes, deadline: float) -> bytes:
        """Send a request and wait for its answer. Raises TimeoutError; EOFError or OSError when the process ends."""
        self._pipe.send_bytes(request)
        if not self._pipe.poll(max(0.0, deadline - time.monotonic())):
            raise TimeoutError
        return self._pipe.recv_bytes()

    def end(self) -> None:
        """Kill the process and wait for its end."""
        self._pipe.close()
        self._process.kill()
        self._process.join()
