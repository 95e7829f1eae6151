"""Turns of requests, in a process that gevent has patched."""

import pytest

from tests.gateway.patched_process import run_patched

pytestmark = pytest.mark.integration

BUSY = """
import time, gevent
from serving.gateway.gunicorn.turns import SECONDS, Turns
turns, order = Turns(), []
gevent.sleep(0.01)  # a turn of the loop has begun

def work(name, is_probe=False):
    waiter = turns.join(is_probe=is_probe)
    if waiter is not None:
        waiter.get()
    end = time.monotonic() + SECONDS  # one takes a whole turn of the loop
    while time.monotonic() < end:
        pass
    order.append(name)
"""


def test_a_probe_and_the_loop_go_before_the_requests_that_wait() -> None:
    code = f"""{BUSY}
flood = [gevent.spawn(work, "request") for _ in range(20)]
gevent.spawn_later(0, order.append, "loop")  # a timer's event, handled by the loop between two requests
probe = gevent.spawn(work, "probe", True)
gevent.joinall([*flood, probe])
print(len(order), order.index("probe"), order.index("loop"))
"""
    count, probe, loop = map(int, run_patched(code).split())
    assert count == 22
    assert probe <= 3
    assert loop <= 5


def test_a_greenlet_that_is_killed_in_line_holds_up_nobody() -> None:
    code = f"""{BUSY}
flood = [gevent.spawn(work, number) for number in range(5)]
gevent.spawn(lambda: flood[3].kill(block=False))
gevent.joinall(flood)
print(order)
"""
    assert run_patched(code) == "[0, 1, 2, 4]"


def test_a_lone_request_does_not_wait() -> None:
    code = f"""{BUSY}
print(turns.join())
"""
    assert run_patched(code) == "None"
