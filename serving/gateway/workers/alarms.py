"""Time limits of greenlets. All of a process share one timer: a timer each would cost a request a tenth of its time."""

import time
from collections.abc import Callable
from typing import Any

import gevent

LATE_SECONDS = 0.25  # longest delay of an alarm

_set: set["Alarm"] = set()
_timer: Any = None


class Alarm:
    """End a block of the running greenlet that waits for longer than `seconds`. Used once, in `with`.

    error: makes the exception that the block then raises; None: the block ends silently. since: its start, monotonic.
    """

    __slots__ = ("_error", "_greenlet", "_until", "since")

    def __init__(self, seconds: float, error: Callable[[], Exception] | None = None) -> None:
        self.since = time.monotonic()
        self._until = self.since + seconds
        self._error = error
        self._greenlet = gevent.getcurrent()

    @property
    def is_silent(self) -> bool:
        """Its block ends without an exception."""
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
        """End the block now, if it is still running. Called in the hub only, where no greenlet runs meanwhile."""
        if self in _set:
            self._greenlet.throw(_Rung(self) if self._error is None else self._error())


class _Rung(BaseException):
    """Ends a block silently. A BaseException, so that `except Exception` does not catch it."""

    def __init__(self, alarm: Alarm) -> None:
        super().__init__()
        self.alarm = alarm


def ring_silent(before: float) -> None:
    """Ring the silent alarms that began by `before` (monotonic seconds). Called in the hub only."""
    for alarm in [each for each in _set if each.is_silent and each.since <= before]:
        alarm.ring()


def _start() -> None:
    global _timer  # noqa: PLW0603 - one for each process's hub
    _timer = gevent.get_hub().loop.timer(LATE_SECONDS, LATE_SECONDS, ref=False)
    _timer.start(_ring_due)


def _ring_due() -> None:
    now = time.monotonic()
    for alarm in [each for each in _set if each._until <= now]:
        alarm.ring()
