"""Time limits of greenlets."""

import pytest

from tests.gateway.patched_process import run_patched

pytestmark = pytest.mark.integration


def test_an_alarm_ends_the_block_that_waits_too_long_and_no_other() -> None:
    code = """
import gevent
from serving.gateway.workers.alarms import LATE_SECONDS, Alarm
said = []
with Alarm(0.1, ValueError):
    said.append("in time")
gevent.sleep(0.1 + 2 * LATE_SECONDS)
try:
    with Alarm(60, KeyError), Alarm(0.1, lambda: ValueError("too long")):
        gevent.sleep(60)
except ValueError as exc:
    said.append(str(exc))
print(said)
"""
    assert run_patched(code) == "['in time', 'too long']"
