"""The protocol of whatever runs CPU-heavy work off an event loop."""

from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Executor(Protocol):
    """Run CPU-heavy work off the event loop, and wait for its result."""

    def __call__(self, work: Callable[[], T], size: int = 0) -> T:
        """Return the work's result or raise its error. size: bytes of memory that it may take at its peak.

        May raise Overloaded and DeadlineExceeded before the work has started, DeadlineExceeded while it runs.
        """


def run_inline(work: Callable[[], T], size: int = 0) -> T:  # noqa: ARG001
    """Run the work at once, in this thread: the Executor for callers without an event loop, and for small work."""
    return work()
