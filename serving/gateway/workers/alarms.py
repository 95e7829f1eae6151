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

    error: makes the exception that the block then raises.
    """

    __slots__ = ("_error", "_greenlet", "until")

    def __init__(self, seconds: float, error: Callable[[], Exception]) -> None:
        self.until = time.monotonic() + seconds
        self._error = error
        self._greenlet = gevent.getcurrent()

    def __enter__(self) -> None:
        if _timer is None:
            _start()
        _set.add(self)

    def __exit__(self, *exc: object) -> None:
        _set.discard(self)

    def ring(self) -> None:
        """End the block now, if it is still running. Called in the hub only, where no greenlet runs meanwhile."""
        if self in _set:
            self._greenlet.throw(self._error())


def _start() -> None:
    global _timer  # noqa: PLW0603 - one for each process's hub
    _timer = gevent.get_hub().loop.timer(LATE_SECONDS, LATE_SECONDS, ref=False)
    _timer.start(_ring_due)


def _ring_due() -> None:
    now = time.monotonic()
    for alarm in [each for each in _set if each.until <= now]:
        alarm.ring()
