"""The pool, in threads of its own, and under gevent."""

import threading
import time
from collections.abc import Callable

import pytest

from serving.backend.predictor import ANYTIME, Call
from serving.contract.errors import DeadlineExceeded, NotAnImage, Overloaded
from serving.gateway.workers.memory import FreedMemory
from serving.gateway.workers.pool import LARGE_BYTES, WorkPool
from tests.gateway.patched_process import run_patched
from tests.waiting import until

SOON = 0.3  # seconds


class Running:
    """Work that ends when it is told to, and what became of it."""

    def __init__(self, pool: WorkPool, name: str, seen: list[str], size: int = 0, call: Call = ANYTIME) -> None:
        self._end, self.error = threading.Event(), None
        self._pool, self._name, self._seen, self._size, self._call = pool, name, seen, size, call
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._pool.executor(self._call)(self._work, self._size)
        except Exception as exc:  # noqa: BLE001
            self.error: Exception | None = exc

    def _work(self) -> None:
        self._seen.append(self._name)
        self._end.wait(30)

    def end(self) -> None:
        self._end.set()
        self._thread.join(30)


def test_the_result_and_the_error_of_work_reach_the_asker() -> None:
    run = WorkPool(1, 1, 1).executor(ANYTIME)

    def broken() -> None:
        raise NotAnImage("no picture")

    assert run(lambda: 7) == 7
    with pytest.raises(NotAnImage, match="no picture"):
        run(broken)
    assert run(lambda: 8) == 8  # its place is free again


def test_no_more_runs_at_a_time_than_there_are_threads_and_the_rest_in_order() -> None:
    pool, seen = WorkPool(2, 10, 1_000), list[str]()
    works = []
    for name in "abcd":
        works.append(Running(pool, name, seen))
        until(lambda: len(pool._waiting) + len(seen) == len(works))
    assert seen == ["a", "b"]
    works[0].end()
    until(lambda: seen == ["a", "b", "c"])
    works[1].end()
    until(lambda: seen == ["a", "b", "c", "d"])
    works[2].end()
    works[3].end()


def test_one_more_than_may_wait_is_refused() -> None:
    pool, seen = WorkPool(1, 1, 1), list[str]()
    first = Running(pool, "a", seen)
    until(lambda: seen == ["a"])
    second = Running(pool, "b", seen)
    until(lambda: len(pool._waiting) == 1)
    with pytest.raises(Overloaded, match="SIGHTLINE_DECODE_QUEUE"):
        pool.executor(ANYTIME)(lambda: None)
    first.end()
    second.end()
    assert pool.executor(ANYTIME)(lambda: 1) == 1


def test_work_waits_for_memory_and_the_large_one_runs_alone() -> None:
    pool, seen = WorkPool(3, 10, 100), list[str]()
    half = Running(pool, "half", seen, 50)
    until(lambda: seen == ["half"])
    huge = Running(pool, "huge", seen, 1_000)
    until(lambda: len(pool._waiting) == 1)
    small = Running(pool, "small", seen, 1)  # would fit, but does not overtake
    until(lambda: len(pool._waiting) == 2)
    assert seen == ["half"]
    half.end()
    until(lambda: seen == ["half", "huge"])
    assert len(pool._waiting) == 1
    huge.end()
    until(lambda: seen == ["half", "huge", "small"])
    small.end()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Call(time.monotonic() + SOON), "time allowed"),
        (lambda: Call(is_abandoned=lambda: True), "client has gone"),
    ],
)
def test_work_that_waits_is_dropped_at_its_deadline_and_without_its_client(
    call: Callable[[], Call], words: str
) -> None:
    pool, seen = WorkPool(1, 10, 1), list[str]()
    first = Running(pool, "a", seen)
    until(lambda: seen == ["a"])
    second = Running(pool, "b", seen, call=call())
    second._thread.join(30)
    assert isinstance(second.error, DeadlineExceeded)
    assert words in str(second.error)
    first.end()
    assert seen == ["a"]
    assert pool.executor(ANYTIME)(lambda: 1) == 1


def test_a_place_is_held_while_work_runs() -> None:
    held: list[str] = []

    def hold() -> Callable[[], None]:
        held.append("taken")
        return lambda: held.append("free")

    pool = WorkPool(1, 1, 1, hold)
    pool.executor(ANYTIME)(lambda: held.append("work"))
    assert held == ["taken", "work", "free"]


@pytest.mark.integration
def test_long_work_runs_in_a_thread_while_others_go_on() -> None:
    code = """
import gevent
from gevent.monkey import get_original
from serving.backend.predictor import ANYTIME
from serving.gateway.workers.pool import WorkPool
sleep = get_original("time", "sleep")  # does not let others go on
seen = []
other = gevent.spawn(lambda: [seen.append(gevent.sleep(0.01)) for _ in range(5)])
print(WorkPool(2, 2, 1).executor(ANYTIME)(lambda: (sleep(0.5), len(seen))[1]))
"""
    assert run_patched(code) == "5"


@pytest.mark.integration
def test_an_error_of_work_in_a_thread_is_raised_to_the_asker() -> None:
    code = """
from serving.backend.predictor import ANYTIME
from serving.contract.errors import NotAnImage
from serving.gateway.workers.pool import WorkPool
def work():
    raise NotAnImage("no picture")
try:
    WorkPool(2, 2, 1).executor(ANYTIME)(work)
except NotAnImage as exc:
    print(exc.detail)
"""
    assert run_patched(code) == "no picture"


@pytest.mark.integration
def test_a_deadline_is_kept_while_work_goes_on_whose_place_stays_taken() -> None:
    code = """
import time
import gevent
from gevent.monkey import get_original
from serving.backend.predictor import ANYTIME, Call
from serving.contract.errors import DeadlineExceeded
from serving.gateway.workers.pool import WorkPool
sleep = get_original("time", "sleep")
held = []
def hold():
    held.append("taken")
    return lambda: held.append("free")
pool = WorkPool(1, 2, 1, hold)
start = time.monotonic()
try:
    pool.executor(Call(start + 0.2))(lambda: sleep(1.5))
except DeadlineExceeded:
    print(time.monotonic() - start < 1, held)
pool.executor(ANYTIME)(lambda: None)  # runs when the other has ended: there is one thread
print(time.monotonic() - start >= 1.5, held)
"""
    assert run_patched(code).splitlines() == ["True ['taken']", "True ['taken', 'free', 'taken', 'free']"]


def test_the_memory_of_large_work_alone_is_returned() -> None:
    trimmed = threading.Event()
    pool = WorkPool(1, 1, 2 * LARGE_BYTES, freed=FreedMemory(trimmed.set))
    run = pool.executor(ANYTIME)
    for _ in range(10):
        run(lambda: None, LARGE_BYTES - 1)
    assert pool._freed._timer is None
    run(lambda: None, LARGE_BYTES)
    assert trimmed.wait(20)
