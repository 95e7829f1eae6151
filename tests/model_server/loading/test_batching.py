"""Dynamic batching: section 7 of the facts, at the scheduler and through the real server."""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.model_server.loading.batching import BatchingRuntime, BatchScheduler, BatchSettings, read_batch_settings
from serving.model_server.metrics import Metrics
from serving.runtimes.status import CallError, invalid_argument
from serving.runtimes.tensors import Array
from tests.model_server.server_process import running
from tests.waiting import until


class Doubler:
    """Answers twice its input, when it may; remembers the rows of every run."""

    def __init__(self) -> None:
        self.signatures: Mapping[str, Any] = {}
        self.runs: list[Array] = []
        self.may_run = threading.Event()
        self.may_run.set()
        self.deadlines: list[float | None] = []

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], deadline: float | None = None) -> list[Array]:
        x = feeds["x"]
        self.runs.append(x)
        self.deadlines.append(deadline)
        assert self.may_run.wait(10)
        if x.dtype.kind == "f" and (x < 0).any():
            raise invalid_argument("negative")
        return [x + x for _ in fetches]


def batched(model: Doubler, **settings: Any) -> BatchingRuntime:
    return BatchingRuntime(model, BatchScheduler(BatchSettings(**{"threads": 1, **settings}), Metrics()))


def rows(*values: float) -> dict[str, Array]:
    return {"x": np.array(values, np.float32)}


class Clients:
    """Calls that run beside the test."""

    def __init__(self, model: BatchingRuntime) -> None:
        self.model = model
        self.arrivals = model._scheduler._metrics.input_batch_size
        self.pool = ThreadPoolExecutor(32)

    def call(self, feeds: dict[str, Array], deadline: float | None = None) -> Any:
        """Start a call and wait until the scheduler has it, so that calls arrive in the order of the test."""
        before = self.arrivals.total()
        future = self.pool.submit(self.model.run, feeds, ["y"], deadline)
        until(lambda: self.arrivals.total() > before or future.done())
        return future


def test_a_lone_request_runs_on_its_own_thread() -> None:
    model = Doubler()
    assert batched(model).run(rows(1, 2), ["y"])[0].tolist() == [2, 4]
    assert [len(run) for run in model.runs] == [2]


def test_requests_that_wait_are_merged_and_each_gets_its_rows() -> None:
    model = Doubler()
    model.may_run.clear()
    clients = Clients(batched(model))
    futures = [clients.call(rows(*range(at, at + 3))) for at in range(0, 15, 3)]
    model.may_run.set()
    assert [future.result(5)[0].tolist() for future in futures] == [
        [2 * value for value in range(at, at + 3)] for at in range(0, 15, 3)
    ]
    assert [len(run) for run in model.runs] == [3, 12]


def test_a_request_that_does_not_fit_closes_the_batch() -> None:
    model = Doubler()
    model.may_run.clear()
    clients = Clients(batched(model, max_batch_size=4))
    futures = [clients.call(rows(*[1.0] * count)) for count in (1, 3, 2, 2, 1)]
    model.may_run.set()
    assert [len(future.result(5)[0]) for future in futures] == [1, 3, 2, 2, 1]
    assert [len(run) for run in model.runs] == [1, 3, 4, 1]


def test_types_and_shapes_are_never_mixed() -> None:
    model = Doubler()
    model.may_run.clear()
    clients = Clients(batched(model))
    inputs: list[dict[str, Array]] = [
        rows(0),
        {"x": np.zeros((2, 3), np.float32)},
        {"x": np.zeros((2, 4), np.float32)},
        {"x": np.zeros((1, 3), np.float64)},
        {"x": np.zeros((1, 3), np.float32)},
    ]
    futures = [clients.call(feeds) for feeds in inputs]
    model.may_run.set()
    assert [future.result(5)[0].shape for future in futures] == [feeds["x"].shape for feeds in inputs]
    assert sorted(run.shape for run in model.runs) == [(1,), (1, 3), (2, 4), (3, 3)]


def test_one_bad_request_does_not_fail_its_neighbours() -> None:
    model = Doubler()
    model.may_run.clear()
    clients = Clients(batched(model))
    futures = [clients.call(rows(value)) for value in (0, 1, -1, 2)]
    model.may_run.set()
    assert futures[1].result(5)[0].tolist() == [2]
    assert futures[3].result(5)[0].tolist() == [4]
    with pytest.raises(CallError, match="negative"):
        futures[2].result(5)


def test_a_full_queue_is_unavailable_at_once() -> None:
    model = Doubler()
    model.may_run.clear()
    clients = Clients(batched(model, max_batch_size=1, max_enqueued_batches=2))
    futures = [clients.call(rows(value)) for value in (1, 2, 3)]
    with pytest.raises(CallError) as caught:
        clients.call(rows(4)).result(1)
    assert str(caught.value) == (
        "UNAVAILABLE: The batch scheduling queue to which this task was submitted is full; currently 2 batches "
        "enqueued and max_enqueued_batches is 2"
    )
    model.may_run.set()
    assert [future.result(5)[0].tolist() for future in futures] == [[2], [4], [6]]


def test_a_request_whose_deadline_passed_in_the_queue_is_never_run() -> None:
    model = Doubler()
    model.may_run.clear()
    clients = Clients(batched(model))
    first = clients.call(rows(1))
    late = clients.call(rows(7), time.monotonic() + 0.1)
    patient = clients.call(rows(8), time.monotonic() + 60)
    with pytest.raises(CallError, match="RESOURCE_EXHAUSTED: Run"):
        late.result(2)
    model.may_run.set()
    assert first.result(5)[0].tolist() == [2]
    assert patient.result(5)[0].tolist() == [16]
    assert [run.tolist() for run in model.runs] == [[1], [8]]


def test_the_opener_of_a_batch_may_give_up() -> None:
    model = Doubler()
    model.may_run.clear()
    clients = Clients(batched(model))
    clients.call(rows(1))
    opener = clients.call(rows(2), time.monotonic() + 0.1)
    follower = clients.call(rows(3))
    with pytest.raises(CallError):
        opener.result(2)
    model.may_run.set()
    assert follower.result(5)[0].tolist() == [6]


def test_a_batch_waits_for_its_timeout() -> None:
    model = Doubler()
    clients = Clients(batched(model, batch_timeout_seconds=0.3))
    started = time.monotonic()
    futures = [clients.call(rows(value)) for value in (1, 2)]
    assert [future.result(5)[0].tolist() for future in futures] == [[2], [4]]
    assert time.monotonic() - started >= 0.3
    assert [len(run) for run in model.runs] == [2]


def test_a_full_batch_does_not_wait() -> None:
    clients = Clients(batched(Doubler(), batch_timeout_seconds=30, max_batch_size=2))
    futures = [clients.call(rows(value)) for value in (1, 2)]
    assert [future.result(2)[0].tolist() for future in futures] == [[2], [4]]


def test_allowed_sizes_pad_and_cut() -> None:
    model = Doubler()
    answer = batched(model, max_batch_size=8, allowed_sizes=(4, 8)).run(rows(5, 6, 7), ["y"])
    assert answer[0].tolist() == [10, 12, 14]
    assert model.runs[0].tolist() == [5, 6, 7, 5]


def test_allowed_sizes_end_with_the_largest() -> None:
    message = "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 16; expected 32"
    with pytest.raises(CallError, match=message):
        BatchSettings(max_batch_size=32, allowed_sizes=(8, 16))
    with pytest.raises(CallError):
        BatchSettings(max_batch_size=8, allowed_sizes=(8, 4, 8))


def test_variable_lengths_are_padded_with_the_first_element() -> None:
    model = Doubler()
    model.may_run.clear()
    clients = Clients(batched(model, pad_inputs=True))
    first = clients.call(rows(1))
    one = clients.call({"x": np.array([[1, 2]], np.float32)})
    two = clients.call({"x": np.array([[3, 4, 5]], np.float32)})
    model.may_run.set()
    assert first.result(5)
    assert one.result(5)[0].tolist() == [[2, 4, 2]]
    assert two.result(5)[0].tolist() == [[6, 8, 10]]


def test_large_requests_are_split_where_that_is_asked_for() -> None:
    model = Doubler()
    answer = batched(model, max_batch_size=10, max_execution_size=4, split=True).run(rows(*range(10)), ["y"])
    assert answer[0].tolist() == [2 * value for value in range(10)]
    assert [len(run) for run in model.runs] == [4, 4, 2]


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "Batching Run.. must have at least one input tensor"),
        ({"x": np.float32(1).reshape(())}, "Batching Run.. input tensors must have at least one dimension"),
        (
            {"x": np.zeros(2), "z": np.zeros(3)},
            "Batching Run.. input tensors must have equal 0th-dimension size",
        ),
        ({"x": np.zeros(40)}, "Task size 40 is larger than maximum input batch size 32"),
    ],
)
def test_what_cannot_be_batched_is_refused_or_runs_alone(feeds: dict[str, Any], message: str) -> None:
    with pytest.raises(CallError, match=message):
        batched(Doubler(), max_batch_size=32).run(feeds, ["y"])
    if "x" in feeds:
        assert batched(Doubler(), max_batch_size=32, strict=False).run(feeds, ["y"])


def test_outputs_that_do_not_fit_the_batch_are_named() -> None:
    class Summer(Doubler):
        shape: tuple[int, ...] = ()

        def run(self, *_: Any, **__: Any) -> list[Array]:
            return [np.zeros(self.shape)]

    model = Summer()
    for shape, message in (((), "Batched output tensor has 0 dimensions"), ((7,), "0th dimension does not equal")):
        model.shape = shape
        with pytest.raises(CallError, match=message):
            batched(model).run(rows(1), ["y"])


def test_many_clients_get_their_own_answers() -> None:
    model = batched(Doubler(), threads=2, max_batch_size=16, max_enqueued_batches=100)

    def ask(seed: int) -> bool:
        values = np.random.default_rng(seed).random(seed % 5 + 1).astype(np.float32)
        return bool(np.array_equal(model.run({"x": values}, ["y"], time.monotonic() + 30)[0], values * 2))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(2000)))


def test_the_parameters_file_is_tensorflow_servings(tmp_path: Path) -> None:
    file = tmp_path / "batching.txt"
    file.write_text(
        "max_batch_size { value: 128 } batch_timeout_micros { value: 2000 } num_batch_threads { value: 3 }\n"
        "max_enqueued_batches { value: 7 } allowed_batch_sizes: 64 allowed_batch_sizes: 128\n"
        "pad_variable_length_inputs: true"
    )
    assert read_batch_settings(file) == BatchSettings(
        max_batch_size=128,
        batch_timeout_seconds=0.002,
        threads=3,
        max_enqueued_batches=7,
        allowed_sizes=(64, 128),
        pad_inputs=True,
    )
    file.write_text("max_batch_size: 128")
    with pytest.raises(CallError, match="Invalid protobuf file"):
        read_batch_settings(file)


@pytest.mark.integration
def test_the_server_batches_and_one_bad_client_harms_nobody(models_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "batching.txt"
    file.write_text("max_batch_size { value: 8 } batch_timeout_micros { value: 50000 }")
    flags = ["--enable_batching", f"--batching_parameters_file={file}"]
    with running(tmp_path, "--models", models_dir, *flags) as server:
        server.wait_for("dense", 1)

        def ask(number: int) -> Any:
            width = 5 if number % 4 == 0 else 4
            try:
                response = server.predict("dense", {"x": np.full((1, width), number, np.float32)})
            except Exception as exc:  # noqa: BLE001  the code is looked at below
                return exc
            return response.outputs["y"].float_val[0]

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, range(64)))
        for number, answer in enumerate(answers):
            if number % 4 == 0:
                assert "Matrix size-incompatible" in str(answer)
            else:
                assert answer == 4 * number
        with pytest.raises(Exception, match="Task size 9 is larger than maximum input batch size 8"):
            server.predict("dense", {"x": np.zeros((9, 4), np.float32)})
