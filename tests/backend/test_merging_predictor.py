"""Leader and followers, with a model that is held back by hand: every test decides when an RPC returns."""

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest

from serving.backend.merging_predictor import MergingPredictor
from serving.backend.predictor import (
    ANYTIME,
    Call,
    ModelRef,
    Readiness,
    Scores,
    ServedModel,
    VersionChanged,
    VersionState,
    readiness_of,
)
from serving.contract.errors import DeadlineExceeded, ModelServerUnavailable
from serving.contract.preprocessing import Tensor
from tests.cards import COLORS

SERVED = ServedModel(ModelRef("colors"), 1, COLORS)
OTHER = ServedModel(ModelRef("colors"), 2, COLORS)


@dataclass
class Held:
    """Answers each picture with its first number, when a permit is given. fails: what the next RPCs raise."""

    permits: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    batches: list[list[int]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    fails: list[BaseException | None] = field(default_factory=list)

    def describe(self, ref: ModelRef, call: Call = ANYTIME) -> ServedModel:  # noqa: ARG002
        return ServedModel(ref, 1, COLORS)

    def predict(self, served: ServedModel, batch: Tensor, call: Call = ANYTIME) -> Scores:
        self.batches.append(batch[:, 0].tolist())
        self.calls.append(call)
        if not self.permits.acquire(timeout=call.seconds_left()):
            raise DeadlineExceeded("the model is slow")
        if self.fails and (exc := self.fails.pop(0)) is not None:
            raise exc
        return Scores(served.version, batch.astype(np.float32))

    def models(self) -> Mapping[str, Sequence[VersionState]]:
        return {"colors": self.versions("colors")}

    def readiness(self, call: Call = ANYTIME) -> Readiness:  # noqa: ARG002
        return readiness_of(self.models())

    def versions(self, name: str) -> Sequence[VersionState]:
        return [VersionState(1, "AVAILABLE", name)]


class Bench:
    """Sends requests from threads of their own, each known to have arrived before the next."""

    def __init__(self, held: Held, **limits: int) -> None:
        self.held = held
        self.predictor = MergingPredictor(held, **limits)
        self.pool = ThreadPoolExecutor(64)

    def send(
        self, *numbers: int, served: ServedModel = SERVED, call: Call = ANYTIME, waits: bool = True
    ) -> Future[list[int]]:
        before = self.seen()
        done = self.pool.submit(self._ask, numbers, served, call)
        if waits:
            until(lambda: self.seen() > before)
        return done

    def seen(self) -> int:
        lanes = self.predictor._lanes.values()
        return len(self.held.batches) + sum(len(lane.waiting) for lane in lanes)

    def _ask(self, numbers: Sequence[int], served: ServedModel, call: Call) -> list[int]:
        batch = np.array(numbers, np.uint8).reshape(-1, 1)
        scores = self.predictor.predict(served, batch, call)
        return [int(value) for value in scores.probabilities[:, 0]]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.001)


def soon(seconds: float) -> Call:
    return Call(time.monotonic() + seconds)


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def bench(held: Held) -> Bench:
    return Bench(held)


def test_a_request_that_finds_no_rpc_out_goes_at_once_and_alone(bench: Bench, held: Held) -> None:
    held.permits.release(2)
    assert bench.send(1, waits=False).result(5) == [1]
    assert bench.send(2, waits=False).result(5) == [2]
    assert held.batches == [[1], [2]]
    assert not bench.predictor._lanes


def test_those_that_come_while_an_rpc_is_out_share_the_next(bench: Bench, held: Held) -> None:
    sent = [bench.send(1), bench.send(2), bench.send(3, 4), bench.send(5)]
    held.permits.release(2)
    assert [done.result(5) for done in sent] == [[1], [2], [3, 4], [5]]
    assert held.batches == [[1], [2, 3, 4, 5]]
    assert not bench.predictor._lanes


def test_a_merged_batch_stays_within_the_limit_of_pictures_and_keeps_the_order(held: Held) -> None:
    bench = Bench(held, max_pictures=3)
    sent = [bench.send(0), bench.send(1), bench.send(2), bench.send(3, 4), bench.send(5)]
    held.permits.release(3)
    assert [done.result(5) for done in sent] == [[0], [1], [2], [3, 4], [5]]
    assert held.batches == [[0], [1, 2], [3, 4, 5]]


def test_a_merged_batch_stays_within_the_limit_of_bytes(held: Held) -> None:
    bench = Bench(held, max_bytes=2)
    sent = [bench.send(number) for number in range(4)]
    held.permits.release(3)
    assert [done.result(5) for done in sent] == [[0], [1], [2], [3]]
    assert held.batches == [[0], [1, 2], [3]]


def test_a_request_larger_than_the_limit_goes_alone(held: Held) -> None:
    bench = Bench(held, max_pictures=2)
    sent = [bench.send(0), bench.send(1, 2, 3), bench.send(4)]
    held.permits.release(3)
    assert [done.result(5) for done in sent] == [[0], [1, 2, 3], [4]]
    assert held.batches == [[0], [1, 2, 3], [4]]


def test_versions_do_not_wait_for_each_other(bench: Bench, held: Held) -> None:
    sent = [bench.send(1), bench.send(2, served=OTHER)]
    assert held.batches == [[1], [2]]
    held.permits.release(2)
    assert [done.result(5) for done in sent] == [[1], [2]]


@pytest.mark.parametrize("kind", [VersionChanged, lambda: ModelServerUnavailable("away", hint="wait"), KeyError])
def test_a_failed_rpc_fails_exactly_the_requests_in_it(bench: Bench, held: Held, kind: Callable[[], Exception]) -> None:
    held.fails = [None, kind(), None]
    first, second, third = bench.send(1), bench.send(2), bench.send(3)
    held.permits.release()
    until(lambda: len(held.batches) == 2)
    fourth = bench.send(4)
    held.permits.release(2)
    assert first.result(5) == [1]
    failures = [second.exception(5), third.exception(5)]
    assert [type(exc) for exc in failures] == [type(kind())] * 2
    assert failures[0] is not failures[1]
    assert [str(exc) for exc in failures] == [str(kind())] * 2
    assert fourth.result(5) == [4]
    assert held.batches == [[1], [2, 3], [4]]


def test_a_request_that_waits_too_long_leaves_the_queue_and_only_it(bench: Bench, held: Held) -> None:
    first, hasty, patient = bench.send(1), bench.send(2, call=soon(1.5)), bench.send(3)
    assert isinstance(hasty.exception(5), DeadlineExceeded)
    held.permits.release(2)
    assert [first.result(5), patient.result(5)] == [[1], [3]]
    assert held.batches == [[1], [3]]


def test_a_slow_rpc_ends_with_its_leaders_deadline_and_the_others_go_again(bench: Bench, held: Held) -> None:
    first = bench.send(1)
    leader, patient, more_patient = (
        bench.send(2, call=soon(0.3)),
        bench.send(3, call=soon(30)),
        bench.send(4, call=soon(30)),
    )
    held.permits.release()
    assert first.result(5) == [1]
    assert isinstance(leader.exception(5), DeadlineExceeded)
    held.permits.release()
    assert [patient.result(5), more_patient.result(5)] == [[3], [4]]
    assert held.batches == [[1], [2, 3, 4], [3, 4]]


def test_a_request_in_a_hurry_leads_an_rpc_of_its_own(bench: Bench, held: Held) -> None:
    first, patient = bench.send(1), bench.send(2, call=soon(60))
    hurried = bench.send(3, call=soon(30))
    held.permits.release(3)
    assert [done.result(5) for done in (first, patient, hurried)] == [[1], [2], [3]]
    assert held.batches == [[1], [2], [3]]


def test_the_leaders_metadata_travels(bench: Bench, held: Held) -> None:
    held.permits.release()
    bench.send(1, call=Call(None, (("traceparent", "x"),)), waits=False).result(5)
    assert held.calls[0].metadata == (("traceparent", "x"),)


def test_the_merged_requests_and_pictures_are_told(held: Held) -> None:
    told: list[tuple[int, int]] = []
    predictor = MergingPredictor(held, merged=lambda _, requests, pictures: told.append((requests, pictures)))
    held.permits.release()
    predictor.predict(SERVED, np.zeros((3, 1), np.uint8))
    assert told == [(1, 3)]


def test_what_is_served_is_asked_of_the_inner_predictor(bench: Bench) -> None:
    assert bench.predictor.describe(ModelRef("colors", 1)).ref.version == 1
    assert list(bench.predictor.models()) == ["colors"]
    assert bench.predictor.versions("x")[0].error == "x"


class Flaky(Held):
    """Takes a moment, and fails one RPC in ten."""

    def predict(self, served: ServedModel, batch: Tensor, call: Call = ANYTIME) -> Scores:  # noqa: ARG002
        self.batches.append(batch[:, 0].tolist())
        time.sleep(random.random() / 1000)
        if random.random() < 0.1:
            raise ModelServerUnavailable("away")
        return Scores(served.version, batch.astype(np.float32))


def test_under_load_everybody_gets_their_own_answer_or_the_failure_of_their_rpc() -> None:
    flaky = Flaky()
    predictor = MergingPredictor(flaky, max_pictures=8)
    outcomes: list[str] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(100):
            numbers = [rng.randrange(256) for _ in range(rng.choice([1, 1, 1, 2, 5, 12]))]
            batch = np.array(numbers, np.uint8).reshape(-1, 1)
            try:
                scores = predictor.predict(rng.choice([SERVED, OTHER]), batch, soon(rng.choice([0.002, 30, 30])))
                assert scores.probabilities[:, 0].tolist() == numbers
                outcomes.append("answered")
            except (ModelServerUnavailable, DeadlineExceeded) as exc:
                outcomes.append(exc.code)

    with ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(work, seed) for seed in range(16)]:
            done.result(60)
    assert len(outcomes) == 1600
    assert outcomes.count("answered") > 400  # of the 800 that have time enough
    assert max(map(len, flaky.batches)) <= 12
    assert len(flaky.batches) < 1600
    assert not predictor._lanes
