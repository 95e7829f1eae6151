"""The pool of threads for CPU-heavy work: in order, within bounds of threads, of memory and of what waits."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from serving.backend.predictor import Call
from serving.contract.errors import DeadlineExceeded, Overloaded
from serving.contract.executor import Executor
from serving.gateway.workers.greenlets import is_patched
from serving.gateway.workers.memory import FreedMemory

T = TypeVar("T")
CHECK_SECONDS = 0.25  # between two checks of a waiting request for its client
LARGE_BYTES = 100_000_000  # of memory of one piece of work; less is not worth a trim, which ordinary photos would pay


@dataclass(slots=True, eq=False)
class _Turn:
    """A request's place in the queue. size: bytes of memory that its work may take."""

    size: int
    ready: threading.Event = field(default_factory=threading.Event)
    is_waiting: bool = True


class WorkPool:
    """Runs work in threads, one after the other in the order in which it came.

    threads: most that run at a time. most_waiting: requests; one more is refused. most_bytes: of memory of all work
    that runs at a time; work that takes more by itself runs alone.
    hold: keeps the running request's place until what it returns is called, after the work's end: also where its client
    has gone and its deadline has passed, work that cannot be interrupted counts. freed: counts the memory of large work
    that has ended.

    In a gevent worker, the work runs in native threads, and a request whose deadline passes meanwhile is answered at
    once. In other processes it runs in the request's own thread.
    """

    def __init__(
        self,
        threads: int,
        most_waiting: int,
        most_bytes: int,
        hold: Callable[[], Callable[[], None]] = lambda: lambda: None,
        freed: FreedMemory | None = None,
    ) -> None:
        self._threads, self._most_waiting, self._most_bytes = threads, most_waiting, most_bytes
        self._hold = hold
        self._freed = freed or FreedMemory()
        self._lock = threading.Lock()
        self._waiting: deque[_Turn] = deque()
        self._running = 0
        self._bytes = 0
        self._native: Any = None

    def executor(self, call: Call) -> Executor:
        """Make the Executor of one request. call: its deadline and its client."""

        def run(work: Callable[[], T], size: int = 0) -> T:
            return self._run(work, call, size)

        return run

    def _run(self, work: Callable[[], T], call: Call, size: int) -> T:
        turn = self._enter(size)
        try:
            self._wait(turn, call)
        except BaseException:  # of any kind: the greenlet may be killed
            self._leave(turn)
            raise
        release = self._hold()

        def ended(_: object = None) -> None:
            self._leave(turn)
            release()

        try:
            if is_patched():
                return self._in_thread(work, call, ended)
            try:
                return work()
            finally:
                ended()
        finally:
            if size >= LARGE_BYTES:
                self._freed.add(size)  # not in `ended`, which runs in the hub, where no thread can be started

    def _enter(self, size: int) -> _Turn:
        turn = _Turn(size)
        with self._lock:
            if len(self._waiting) >= self._most_waiting:
                raise Overloaded(
                    f"{self._most_waiting} requests wait for a decoding thread, the limit (SIGHTLINE_DECODE_QUEUE).",
                    hint="Try again in a moment.",
                )
            self._waiting.append(turn)
            self._start_next()
        return turn

    def _wait(self, turn: _Turn, call: Call) -> None:
        while not turn.ready.is_set():
            left = call.seconds_left()
            turn.ready.wait(CHECK_SECONDS if left is None else min(CHECK_SECONDS, left))
            call.require_wanted()

    def _leave(self, turn: _Turn) -> None:
        with self._lock:
            if turn.is_waiting:
                self._waiting.remove(turn)
            else:
                self._running -= 1
                self._bytes -= turn.size
            self._start_next()

    def _start_next(self) -> None:
        while self._waiting and self._running < self._threads:
            turn = self._waiting[0]
            if self._running and self._bytes + turn.size > self._most_bytes:
                break
            self._waiting.popleft()
            turn.is_waiting = False
            self._running += 1
            self._bytes += turn.size
            turn.ready.set()

    def _in_thread(self, work: Callable[[], T], call: Call, ended: Callable[[object], None]) -> T:
        import gevent
        from gevent.threadpool import ThreadPool

        if self._native is None:
            self._native = ThreadPool(self._threads)
        result = self._native.spawn(_outcome, work)
        result.rawlink(ended)  # called in the hub, also where nobody waits any more
        try:
            value, error = result.get(timeout=call.seconds_left())
        except gevent.Timeout as exc:
            raise DeadlineExceeded(
                "The time allowed for the request ran out while its images were being decoded.",
                hint="Send fewer or smaller images, or allow more time.",
            ) from exc
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]


def _outcome(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """Return result and error: gevent would write the traceback of every error of a thread to the log."""
    try:
        return work(), None
    except Exception as exc:  # noqa: BLE001 - raised again by the request that waits for it
        return None, exc
