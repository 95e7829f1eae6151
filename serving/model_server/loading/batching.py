"""Dynamic batching: requests that wait for the same model run as one.

A batch forms while all batch threads are busy, or until `batch_timeout` has passed. There are no threads of its own:
the request that opened a batch runs it, so that a request that meets no other pays for no hand-over. Requests are
grouped by the type and inner shape of their inputs, and a merged run that fails is repeated request by request: one bad
client never fails its neighbours. Parameters, words and codes are TensorFlow Serving's:
tensorflow_serving/batching/batching_session.cc and tensorflow/core/kernels/batching_util/shared_batch_scheduler.h.
"""

import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from serving.contract.machine import usable_cpus
from serving.model_server.metrics import Metrics
from serving.model_server.versions.config_files import read_text_file
from serving.model_server.versions.protos import BatchingParameters
from serving.runtimes.runtime import Runtime
from serving.runtimes.status import CallError, failed_precondition, invalid_argument
from serving.runtimes.tensors import Array

QUEUE_TIMEOUT = "Run() timeout exceeded while waiting in batching queue"


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """TensorFlow Serving's parameters and defaults.

    strict: refuse what cannot be batched or is too large, as it does; otherwise such a request runs on its own.
    """

    max_batch_size: int = 1000
    batch_timeout_seconds: float = 0.0
    max_enqueued_batches: int = 10
    threads: int = usable_cpus()
    allowed_sizes: tuple[int, ...] = ()
    pad_inputs: bool = False
    split: bool = False
    max_execution_size: int = 0
    strict: bool = True

    def __post_init__(self) -> None:
        """Refuse parameters that do not agree. Raises CallError (INVALID_ARGUMENT)."""
        sizes, largest = self.allowed_sizes, self.largest_run
        if not sizes:
            return
        if list(sizes) != sorted(set(sizes)):
            raise invalid_argument("allowed_batch_sizes entries must be monotonically increasing")
        if sizes[-1] != largest:
            which = "max_execution_batch_size" if self.split else "max_batch_size"
            raise invalid_argument(
                f"Last entry in allowed_batch_sizes must match {which}; last entry was {sizes[-1]}; expected {largest}"
            )

    @property
    def largest_run(self) -> int:
        """The largest number of rows of one run."""
        return (self.max_execution_size or self.max_batch_size) if self.split else self.max_batch_size


# The defaults of `--models`: no request is refused for its size or shape, and none waits while a thread is free.
OWN_DEFAULTS = BatchSettings(max_batch_size=32, max_enqueued_batches=100, strict=False)


def read_batch_settings(path: Path) -> BatchSettings:
    """Read a --batching_parameters_file. Raises CallError."""
    given = read_text_file(path, BatchingParameters)
    values: dict[str, Any] = {
        "max_batch_size": "max_batch_size",
        "max_enqueued_batches": "max_enqueued_batches",
        "threads": "num_batch_threads",
        "split": "enable_large_batch_splitting",
        "max_execution_size": "max_execution_batch_size",
    }
    known = {ours: getattr(given, theirs).value for ours, theirs in values.items() if given.HasField(theirs)}
    if given.HasField("batch_timeout_micros"):
        known["batch_timeout_seconds"] = given.batch_timeout_micros.value / 1e6
    return BatchSettings(
        **known, allowed_sizes=tuple(given.allowed_batch_sizes), pad_inputs=given.pad_variable_length_inputs
    )


Run = Callable[[Mapping[str, Array], Sequence[str], float | None], list[Array]]


@dataclass(slots=True, eq=False)
class _Task:
    """Some rows of a request. deadline: of time.monotonic."""

    feeds: Mapping[str, Array]
    rows: int
    deadline: float | None
    call: "_Call"
    born: float
    result: list[Array] | None = None
    error: CallError | None = None

    @property
    def is_done(self) -> bool:
        return self.result is not None or self.error is not None


@dataclass(slots=True, eq=False)
class _Batch:
    queue: "_Queue"
    born: float
    tasks: list[_Task] = field(default_factory=list)
    rows: int = 0
    is_closed: bool = False


@dataclass(slots=True, eq=False)
class _Call:
    """One waiting request. `wake` is set when one of its tasks is done, or when it is to run a batch."""

    tasks: list[_Task] = field(default_factory=list)
    to_run: list[_Batch] = field(default_factory=list)
    wake: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True, eq=False)
class _Queue:
    key: Hashable
    run: Run
    fetches: Sequence[str]
    batches: list[_Batch] = field(default_factory=list)


class BatchScheduler:
    """Share the batch threads among all models. A thread here is the right to run one batch."""

    def __init__(self, settings: BatchSettings, metrics: Metrics) -> None:
        self.settings = settings
        self._metrics = metrics
        self._lock = threading.Lock()
        self._free = settings.threads
        self._queues: dict[Hashable, _Queue] = {}
        self._waiting: list[_Batch] = []  # oldest first

    def run(
        self, key: Hashable, run: Run, feeds: Mapping[str, Array], fetches: Sequence[str], deadline: float | None
    ) -> list[Array]:
        """Run `feeds` merged with those of other callers of the same key. Raises CallError."""
        rows = len(next(iter(feeds.values())))
        now = time.monotonic()
        call = _Call()
        call.tasks = [
            _Task(part, len(next(iter(part.values()))), deadline, call, now) for part in self._cut(feeds, rows)
        ]
        with self._lock:
            self._metrics.input_batch_size.observe(rows)
            queue = self._queues.get(key)
            if queue is None:
                queue = self._queues[key] = _Queue(key, run, fetches)
            try:
                self._enqueue(queue, call.tasks, now)
            finally:
                if not queue.batches:
                    del self._queues[key]
            self._dispatch(now)
        self._wait(call)
        return _joined(call.tasks)

    def _cut(self, feeds: Mapping[str, Array], rows: int) -> list[Mapping[str, Array]]:
        size = self.settings.largest_run
        if not self.settings.split or rows <= size:
            return [feeds]
        return [{name: array[at : at + size] for name, array in feeds.items()} for at in range(0, rows, size)]

    def _enqueue(self, queue: _Queue, tasks: Sequence[_Task], now: float) -> None:
        """Put every task into the open batch or a new one, or, where the queue is full, none of them. Lock held."""
        plan: list[tuple[_Batch, _Task]] = []
        opened: list[_Batch] = []
        open_batch = queue.batches[-1] if queue.batches and not queue.batches[-1].is_closed else None
        planned = open_batch.rows if open_batch else 0
        for task in tasks:
            if open_batch is None or planned + task.rows > self.settings.largest_run:
                open_batch, planned = _Batch(queue, now), 0
                opened.append(open_batch)
            plan.append((open_batch, task))
            planned += task.rows
        limit = self.settings.max_enqueued_batches
        if opened and len(queue.batches) + len(opened) > limit:
            raise CallError(
                grpc.StatusCode.UNAVAILABLE,
                "The batch scheduling queue to which this task was submitted is full; currently "
                f"{len(queue.batches)} batches enqueued and max_enqueued_batches is {limit}",
            )
        if opened and queue.batches:
            queue.batches[-1].is_closed = True
        for batch, task in plan:
            batch.tasks.append(task)
            batch.rows += task.rows
        for batch in opened:
            batch.is_closed = batch is not opened[-1] or batch.rows >= self.settings.largest_run
        if queue.batches and queue.batches[-1].rows >= self.settings.largest_run:
            queue.batches[-1].is_closed = True
        queue.batches += opened
        self._waiting += opened

    def _dispatch(self, now: float) -> None:
        """Give free threads to batches that are ready, oldest first. Lock held."""
        timeout = self.settings.batch_timeout_seconds
        for batch in list(self._waiting):
            if not self._free:
                return
            if not batch.is_closed and now < batch.born + timeout:
                continue
            self._waiting.remove(batch)
            batch.queue.batches.remove(batch)
            if not batch.queue.batches:
                self._queues.pop(batch.queue.key, None)
            batch.is_closed = True
            if not batch.tasks:
                continue
            self._free -= 1
            call = batch.tasks[0].call
            call.to_run.append(batch)
            call.wake.set()

    def _wait(self, call: _Call) -> None:
        """Run the batches that fall to the call until all its tasks are done or its deadline has passed."""
        while True:
            with self._lock:
                batch = call.to_run.pop(0) if call.to_run else None
                if batch is None:
                    if all(task.is_done for task in call.tasks):
                        return
                    call.wake.clear()
            if batch is not None:
                self._execute(batch)
            elif not call.wake.wait(self._patience(call)):
                self._on_timeout(call)

    def _patience(self, call: _Call) -> float | None:
        """Return the seconds to the batch timeout or the deadline, whichever is first; None: wait without limit."""
        now = time.monotonic()
        task = call.tasks[0]
        left = [] if task.deadline is None else [task.deadline - now]
        due = task.born + self.settings.batch_timeout_seconds
        if self.settings.batch_timeout_seconds and now < due:
            left.append(due - now)
        return max(0.0, min(left)) if left else None

    def _on_timeout(self, call: _Call) -> None:
        now = time.monotonic()
        with self._lock:
            deadline = call.tasks[0].deadline
            if deadline is not None and now >= deadline and not call.to_run:
                self._withdraw(call)
            self._dispatch(now)

    def _withdraw(self, call: _Call) -> None:
        """Take the call's tasks out of the batches that wait; what already runs is left to itself. Lock held."""
        for batch in list(self._waiting):
            for task in [task for task in batch.tasks if task.call is call]:
                batch.tasks.remove(task)
                batch.rows -= task.rows
        for task in call.tasks:
            if not task.is_done:
                task.error = CallError(grpc.StatusCode.RESOURCE_EXHAUSTED, QUEUE_TIMEOUT)

    def _execute(self, batch: _Batch) -> None:
        """Run a batch and hand each task its rows; then give the thread to the next batch."""
        now = time.monotonic()
        try:
            live = [task for task in batch.tasks if not task.is_done and not _has_expired(task, now)]
            for task in batch.tasks:
                if task not in live and not task.is_done:
                    task.error = CallError(grpc.StatusCode.RESOURCE_EXHAUSTED, QUEUE_TIMEOUT)
            for task in live:
                self._metrics.queuing_latency.observe((now - task.born) * 1e6)
            if live:
                self._run_merged(batch.queue, live)
        finally:
            with self._lock:
                self._free += 1
                for task in batch.tasks:
                    if not task.is_done:
                        task.error = CallError(grpc.StatusCode.INTERNAL, "the batch that held this request failed")
                    task.call.wake.set()
                self._dispatch(time.monotonic())

    def _run_merged(self, queue: _Queue, tasks: Sequence[_Task]) -> None:
        try:
            self._run_tasks(queue, tasks)
        except CallError as exc:
            if len(tasks) == 1:
                tasks[0].error = exc
                return
            for task in tasks:
                self._run_merged(queue, [task])

    def _run_tasks(self, queue: _Queue, tasks: Sequence[_Task]) -> None:
        rows = sum(task.rows for task in tasks)
        size = next((allowed for allowed in self.settings.allowed_sizes if allowed >= rows), rows)
        feeds = {name: _merged([task.feeds[name] for task in tasks], size) for name in tasks[0].feeds}
        deadlines = [task.deadline for task in tasks if task.deadline is not None]
        deadline = max(deadlines) if len(deadlines) == len(tasks) else None
        self._metrics.processed_batch_size.observe(size)
        self._metrics.padding_size.observe(size - rows, str(size))
        self._metrics.wrapped_runs.add()
        arrays = queue.run(feeds, queue.fetches, deadline)
        for array in arrays:
            if array.ndim == 0:
                raise failed_precondition("Batched output tensor has 0 dimensions")
            if len(array) != size:
                raise failed_precondition(
                    "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the "
                    "input tensors"
                )
        at = 0
        for task in tasks:
            task.result = [array[at : at + task.rows] for array in arrays]
            at += task.rows


class BatchingRuntime:
    """A runtime whose runs are merged with those of other requests."""

    def __init__(self, model: Runtime, scheduler: BatchScheduler) -> None:
        self._model = model
        self._scheduler = scheduler
        self.signatures = model.signatures

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], deadline: float | None = None) -> list[Array]:
        """Run merged with others. Raises CallError; strict settings also refuse inputs that cannot be batched."""
        settings = self._scheduler.settings
        refusal = _refusal(feeds, settings)
        if refusal is not None:
            if settings.strict:
                raise refusal
            return self._model.run(feeds, fetches, deadline)
        return self._scheduler.run(self._key(feeds, fetches), self._model.run, feeds, fetches, deadline)

    def _key(self, feeds: Mapping[str, Array], fetches: Sequence[str]) -> Hashable:
        if self._scheduler.settings.pad_inputs:
            shapes: Hashable = tuple((name, array.dtype.str, array.ndim) for name, array in feeds.items())
        else:
            shapes = tuple((name, array.dtype.str, array.shape[1:]) for name, array in feeds.items())
        return (id(self), shapes, tuple(fetches))


def _refusal(feeds: Mapping[str, Array], settings: BatchSettings) -> CallError | None:
    """Return the reason that these inputs cannot be batched, or None."""
    if not feeds:
        return invalid_argument("Batching Run() must have at least one input tensor")
    if any(array.ndim == 0 for array in feeds.values()):
        return invalid_argument("Batching Run() input tensors must have at least one dimension")
    sizes = {len(array) for array in feeds.values()}
    if len(sizes) > 1:
        return invalid_argument("Batching Run() input tensors must have equal 0th-dimension size")
    size = sizes.pop()
    if size > settings.max_batch_size:
        return invalid_argument(f"Task size {size} is larger than maximum input batch size {settings.max_batch_size}")
    return None


def _has_expired(task: _Task, now: float) -> bool:
    return task.deadline is not None and now >= task.deadline


def _merged(arrays: Sequence[Array], size: int) -> Array:
    """Join arrays to `size` rows, padded to the largest inner shape, filled up with the last array's first row."""
    if len({array.shape[1:] for array in arrays}) > 1:
        inner = tuple(max(sides) for sides in zip(*(array.shape[1:] for array in arrays), strict=True))
        arrays = [_padded(array, inner) for array in arrays]
    rows = sum(len(array) for array in arrays)
    if rows < size and len(arrays[-1]):
        arrays = [*arrays, np.repeat(arrays[-1][:1], size - rows, axis=0)]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _padded(array: Array, inner: tuple[int, ...]) -> Array:
    """Grow the inner sides to `inner`; new places hold the array's first element, as in TensorFlow Serving."""
    grown = np.full((len(array), *inner), array.flat[0] if array.size else 0, dtype=array.dtype)
    grown[(slice(None), *(slice(side) for side in array.shape[1:]))] = array
    return grown


def _joined(tasks: Sequence[_Task]) -> list[Array]:
    for task in tasks:
        if task.error is not None:
            raise task.error
    results = [task.result for task in tasks if task.result is not None]
    return results[0] if len(results) == 1 else [np.concatenate(parts) for parts in zip(*results, strict=True)]
