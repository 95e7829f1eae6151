"""Return freed memory to the system: glibc keeps it, and a worker stayed at four times its size after one photo."""

import ctypes
import threading
from collections.abc import Callable

TRIMMED_AFTER = 32_000_000  # bytes freed, after which memory is returned
TRIM_SECONDS = 1.0  # after the last of them; a trim takes milliseconds, so not after every request


class FreedMemory:
    """Counts the bytes that a process has freed, and returns memory to the system once they are many.

    trim: returns all free memory.
    """

    def __init__(self, trim: Callable[[], None] | None = None) -> None:
        self._trim = trim or _malloc_trim
        self._lock = threading.Lock()
        self._freed = 0
        self._timer: threading.Timer | None = None

    def add(self, size: int) -> None:
        """Count bytes that have been freed."""
        with self._lock:
            self._freed += size
            if self._freed >= TRIMMED_AFTER and self._timer is None:
                self._timer = threading.Timer(TRIM_SECONDS, self._trim_now)
                self._timer.daemon = True
                self._timer.start()

    def _trim_now(self) -> None:
        with self._lock:
            self._freed, self._timer = 0, None
        self._trim()


def _malloc_trim() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc; musl returns memory by itself
    if trim is not None:
        trim(0)
