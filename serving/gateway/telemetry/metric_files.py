"""prometheus_client's files, allocated before they are mapped.

It makes a sparse file and maps it. On a full disk a write to such a page is a SIGBUS, which ends the worker. Here the
pages are allocated first; where there is no room the worker counts in vain and says so.
"""

import contextlib
import logging
import os
from typing import Any

import prometheus_client.values
from prometheus_client import mmap_dict

log = logging.getLogger(__name__)

MOST_PADDING = 32  # bytes of an entry beside its key: a length, padding, two doubles

_lost = False


def is_lost() -> bool:
    """Return True where a file of this process found no room: its metrics are incomplete."""
    return _lost


def install() -> None:
    """Make prometheus_client allocate its files. Call it before the process makes its first metric."""
    prometheus_client.values.MmapedDict = AllocatedDict  # type: ignore[attr-defined]


class AllocatedDict(mmap_dict.MmapedDict):
    """A file of metrics whose pages are there; without room for it, one that keeps nothing."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        self._keeps = True
        try:
            if not read_mode:
                _allocate(filename)
            super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]
        except OSError as exc:
            if read_mode:
                raise
            self._lose(filename, exc)
            with contextlib.suppress(OSError):
                if os.path.getsize(filename) == 0:  # no reader understands an empty one
                    os.unlink(filename)

    def read_value(self, key: str) -> Any:
        if key not in self.__dict__.get("_positions", ()) and self._keeps:
            self._make_room(key)
        return super().read_value(key) if self._keeps else (0.0, 0.0)  # type: ignore[no-untyped-call]

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        if self._keeps:
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        if self.__dict__.get("_f"):
            super().close()  # type: ignore[no-untyped-call]

    def _make_room(self, key: str) -> None:
        """Allocate what the file will grow to for a new key."""
        capacity = self._capacity
        while self._used + len(key.encode()) + MOST_PADDING > capacity:
            capacity *= 2
        if capacity > self._capacity:
            try:
                _fallocate(self._f.fileno(), capacity)
            except OSError as exc:
                self._lose(self._fname, exc)

    def _lose(self, filename: str, exc: OSError) -> None:
        global _lost  # noqa: PLW0603 - of the process, as the metrics are
        self._keeps = False
        if not _lost:
            log.error("No room for metrics in %s: %s. This process counts them no more.", filename, exc.strerror)
        _lost = True


def _allocate(filename: str) -> None:
    with open(filename, "a+b") as file:
        if os.fstat(file.fileno()).st_size == 0:
            _fallocate(file.fileno(), mmap_dict._INITIAL_MMAP_SIZE)


def _fallocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(descriptor, 0, size)
