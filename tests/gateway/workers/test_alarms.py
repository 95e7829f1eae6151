"""Time limits of greenlets."""

import pytest

from tests.gateway.patched_process import run_patched

pytestmark = pytest.mark.integration


def test_an_alarm_ends_the_block_that_waits_too_long_and_no_other() -> None:
    code = """
import gevent
from serving.gateway.workers.alarms import LATE_SECONDS, Alarm
said = []
with Alarm(0.1):
    gevent.sleep(60)
    said.append("not reached")
with Alarm(0.1):
    said.append("in time")
gevent.sleep(0.1 + 2 * LATE_SECONDS)
try:
    with Alarm(60), Alarm(0.1, lambda: ValueError("too long")):
        gevent.sleep(60)
except ValueError as exc:
    said.append(str(exc))
print(said)
"""
    assert run_patched(code) == "['in time', 'too long']"


def test_silent_alarms_are_rung_by_their_age() -> None:
    code = """
import gevent, time
from serving.gateway.workers.alarms import Alarm, ring_silent
said = []
def wait(name, *error):
    with Alarm(60, *error):
        gevent.sleep(2)
        return
    said.append(name)
old = [gevent.spawn(wait, "silent"), gevent.spawn(wait, "loud", ValueError)]
gevent.sleep(0.1)
before = time.monotonic()
young = gevent.spawn(wait, "young")
gevent.sleep(0.1)
gevent.get_hub().loop.run_callback(ring_silent, before)
gevent.joinall([*old, young], raise_error=True)
print(said)
"""
    assert run_patched(code) == "['silent']"
