"""Time limits of greenlets. All of a process share one timer: one for each would cost a request a tenth of its time."""

import time
from collections.abc import Callable
from typing import Any

import gevent

LATE_SECONDS = 0.25  # how much later than asked an alarm may ring

_set: set["Alarm"] = set()
_timer: Any = None


class Alarm:
    """Ends a block of the running greenlet that waits for longer than `seconds`. Use it once, in `with`.

    error: makes what the block then raises; None: the block just ends. since: when it began, monotonic seconds.
    """

    __slots__ = ("_error", "_greenlet", "_until", "since")

    def __init__(self, seconds: float, error: Callable[[], Exception] | None = None) -> None:
        self.since = time.monotonic()
        self._until = self.since + seconds
        self._error = error
        self._greenlet = gevent.getcurrent()

    @property
    def is_silent(self) -> bool:
        """Its block just ends."""
        return self._error is None

    def __enter__(self) -> "Alarm":
        if _timer is None:
            _start()
        _set.add(self)
        return self

    def __exit__(self, kind: object, exc: object, traceback: object) -> bool:
        _set.discard(self)
        return isinstance(exc, _Rung) and exc.alarm is self

    def ring(self) -> None:
        """End the block now, if it is still running. Call it in the hub, where nobody else runs meanwhile."""
        if self in _set:
            self._greenlet.throw(_Rung(self) if self._error is None else self._error())


class _Rung(BaseException):
    """What ends a block in silence. Nobody who catches exceptions should catch it."""

    def __init__(self, alarm: Alarm) -> None:
        super().__init__()
        self.alarm = alarm


def ring_silent(before: float) -> None:
    """Ring those that are silent and began by then (monotonic seconds). Call it in the hub."""
    for alarm in [each for each in _set if each.is_silent and each.since <= before]:
        alarm.ring()


def _start() -> None:
    global _timer  # noqa: PLW0603 - one for each process's hub
    _timer = gevent.get_hub().loop.timer(LATE_SECONDS, LATE_SECONDS, ref=False)
    _timer.start(_look)


def _look() -> None:
    now = time.monotonic()
    for alarm in [each for each in _set if each._until <= now]:
        alarm.ring()
