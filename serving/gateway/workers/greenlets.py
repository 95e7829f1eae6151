"""What differs where gunicorn's gevent workers run the gateway: one thread, in which whatever waits lets others go on.

gunicorn patches the standard library in each worker before it imports the application. Nothing here does anything in a
process that is not patched: under gthread, in tests, at the command line.
"""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

T = TypeVar("T")


def is_patched() -> bool:
    """Whether the standard library's sockets are gevent's."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))


def join_grpc() -> None:
    """Let gRPC wait in gevent's loop. Call it before the process opens its first channel."""
    if is_patched():
        from grpc.experimental.gevent import init_gevent

        init_gevent()


def in_thread(work: Callable[[], T]) -> T:
    """Do in a real thread what computes for long, such as decoding a photo: others are answered meanwhile."""
    if not is_patched():
        return work()
    from gevent import get_hub

    result: T = get_hub().threadpool.apply(work)
    return result


def time_limit(seconds: float, error: Callable[[], Exception]) -> AbstractContextManager[object]:
    """Raise `error()` where the block waits for longer than that. Unlimited in a process that is not patched."""
    if not is_patched():
        return nullcontext()
    from serving.gateway.workers.alarms import Alarm

    return Alarm(seconds, error)
