"""Helpers for gevent workers, where one thread runs all requests and a greenlet that waits lets the others run.

gunicorn patches the standard library in each worker before it imports the application. In a process that is not patched
(gthread, tests, the command line) these functions do nothing special.
"""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext


def is_patched() -> bool:
    """Return True where the standard library's sockets are gevent's."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))


def join_grpc() -> None:
    """Make gRPC wait in gevent's loop. Call it before the process opens its first channel."""
    if is_patched():
        from grpc.experimental.gevent import init_gevent

        init_gevent()


def pause() -> Callable[[float], object] | None:
    """Return a sleep that lets other requests run; None in a process that is not patched."""
    if not is_patched():
        return None
    import gevent

    sleep: Callable[[float], object] = gevent.sleep
    return sleep


def time_limit(seconds: float, error: Callable[[], Exception]) -> AbstractContextManager[object]:
    """Raise `error()` when the block waits for longer than `seconds`. No limit in a process that is not patched."""
    if not is_patched():
        return nullcontext()
    from serving.gateway.workers.alarms import Alarm

    return Alarm(seconds, error)
