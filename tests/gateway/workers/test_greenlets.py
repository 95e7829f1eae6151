"""Work in threads under gevent."""

import pytest

from tests.gateway.patched_process import run_patched

pytestmark = pytest.mark.integration


def test_long_work_runs_in_a_thread_while_others_go_on() -> None:
    code = """
import gevent, time
from serving.gateway.workers.greenlets import in_thread
from gevent.monkey import get_original
sleep = get_original("time", "sleep")  # does not let others go on
seen = []
other = gevent.spawn(lambda: [seen.append(gevent.sleep(0.01)) for _ in range(5)])
print(in_thread(lambda: (sleep(0.5), len(seen))[1]))
"""
    assert run_patched(code) == "5"


def test_an_error_of_work_in_a_thread_is_raised_to_the_asker() -> None:
    code = """
from serving.contract.errors import NotAnImage
from serving.gateway.workers.greenlets import in_thread
def work():
    raise NotAnImage("no picture")
try:
    in_thread(work)
except NotAnImage as exc:
    print(exc.detail)
"""
    assert run_patched(code) == "no picture"
