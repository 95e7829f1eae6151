"""Merge the requests of one worker into fewer, larger RPCs.

Leader and followers: a request that finds no RPC out for its model and version sends at once. Those that come while it
is out gather; when it returns, the one that has waited longest leads the next RPC, with as many of the others as fit.
No timer, no thread of its own, and no request waits while there is room.
"""

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from serving.backend.predictor import ANYTIME, Call, ModelRef, Predictor, Readiness, Scores, ServedModel, VersionState
from serving.contract.errors import DeadlineExceeded
from serving.contract.preprocessing import Tensor

# Measured on two CPUs: throughput falls beyond 32 images of 28 x 28 and beyond 4 photos of 224 x 224 x 3; with eight of
# those, 32 clients got a tenth less and p99 was half as long again.
MAX_PICTURES = 32
MAX_BYTES = 4 * 224 * 224 * 3


@dataclass(slots=True, eq=False)
class _Waiting:
    """One request in the queue. `leads`, `scores` and `error` are guarded by the lock until `woken` is set."""

    batch: Tensor
    call: Call
    woken: threading.Event = field(default_factory=threading.Event)
    leads: bool = False
    scores: Scores | None = None
    error: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        """End the wait with an error."""
        self.error = error
        self.woken.set()


@dataclass(slots=True, eq=False)
class _Lane:
    """The requests of one model and version that wait while an RPC is out. It exists only while one is."""

    waiting: deque[_Waiting] = field(default_factory=deque)


class MergingPredictor:
    """A Predictor whose `predict` shares RPCs. Safe to share between threads; one per process.

    inner: what runs the merged batches. max_pictures, max_bytes: the most of one merged batch; a request that is
    larger by itself goes alone. merged: told the number of requests and of pictures of each RPC, for metrics.

    A failed RPC, and VersionChanged, fails exactly the requests in it. Each request keeps its own deadline: the RPC has
    its leader's, only requests that may wait as long join it, and when the leader has run out of time they go again.
    A request that is abandoned while it waits is never sent.
    """

    def __init__(
        self,
        inner: Predictor,
        *,
        max_pictures: int = MAX_PICTURES,
        max_bytes: int = MAX_BYTES,
        merged: Callable[[ServedModel, int, int], None] = lambda served, requests, pictures: None,  # noqa: ARG005
    ) -> None:
        self._inner = inner
        self._max_pictures = max_pictures
        self._max_bytes = max_bytes
        self._merged = merged
        self._lock = threading.Lock()
        self._lanes: dict[tuple[ModelRef, int], _Lane] = {}

    def describe(self, ref: ModelRef, call: Call = ANYTIME) -> ServedModel:
        """Ask the inner predictor."""
        return self._inner.describe(ref, call)

    def models(self) -> Mapping[str, Sequence[VersionState]]:
        """Ask the inner predictor."""
        return self._inner.models()

    def readiness(self, call: Call = ANYTIME) -> Readiness:
        """Ask the inner predictor."""
        return self._inner.readiness(call)

    def versions(self, name: str) -> Sequence[VersionState]:
        """Ask the inner predictor."""
        return self._inner.versions(name)

    def predict(self, served: ServedModel, batch: Tensor, call: Call = ANYTIME) -> Scores:
        """Run a batch in an RPC that other requests may share. Raises DeadlineExceeded while it waits, too."""
        key = (served.ref, served.version)
        own = _Waiting(batch, call)
        with self._lock:
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = _Lane()
                own.leads = True
            else:
                lane.waiting.append(own)
        if not own.leads:
            self._wait(lane, own)
        if own.leads:
            self._lead(key, lane, own, served)
        if own.error is not None:
            raise own.error
        assert own.scores is not None
        return own.scores

    def _wait(self, lane: _Lane, own: _Waiting) -> None:
        """Block until the request is answered, is to lead, or has waited too long."""
        if own.woken.wait(own.call.seconds_left()):
            return
        with self._lock:
            if own in lane.waiting:
                lane.waiting.remove(own)
                own.error = _too_late()
                return
        own.woken.wait()  # it was just taken into an RPC or made the leader: that ends within its deadline

    def _lead(self, key: tuple[ModelRef, int], lane: _Lane, own: _Waiting, served: ServedModel) -> None:
        """Send one RPC with as many of the waiting as fit, answer them, and hand the lane on."""
        group = [own]
        time.sleep(0)  # let requests that are about to arrive join
        try:
            with self._lock:
                group += self._joining(lane, own)
            self._send(served, group)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, no request may wait forever: all in the RPC get it
            own.error = exc
            retried = [each for each in group[1:] if _may_go_again(exc, each)]
            for each in group[1:]:
                if each not in retried:
                    each.error = _copy_of(exc)
        else:
            retried = []
        with self._lock:
            lane.waiting.extendleft(reversed(retried))
            following = lane.waiting.popleft() if lane.waiting else None
            if following is None:
                del self._lanes[key]
            else:
                following.leads = True
                following.woken.set()
        for each in group[1:]:
            if each not in retried:
                each.woken.set()

    def _joining(self, lane: _Lane, leader: _Waiting) -> list[_Waiting]:
        """Take from the queue, in its order, what fits beside the leader and may wait as long as it."""
        pictures, size = len(leader.batch), leader.batch.nbytes
        taken: list[_Waiting] = []
        while lane.waiting:
            first = lane.waiting[0]
            if first.call.is_abandoned():
                lane.waiting.popleft().fail(_abandoned())
                continue
            pictures, size = pictures + len(first.batch), size + first.batch.nbytes
            fits = pictures <= self._max_pictures and size <= self._max_bytes
            if not fits or first.call.is_before(leader.call):
                break
            taken.append(lane.waiting.popleft())
        return taken

    def _send(self, served: ServedModel, group: Sequence[_Waiting]) -> None:
        leader = group[0]
        if leader.call.seconds_left() == 0:
            raise _too_late()
        if len(group) == 1 and leader.call.is_abandoned():
            raise _abandoned()
        self._merged(served, len(group), sum(len(each.batch) for each in group))
        batch = leader.batch if len(group) == 1 else np.concatenate([each.batch for each in group])
        scores = self._inner.predict(served, batch, leader.call)
        start = 0
        for each in group:
            end = start + len(each.batch)
            each.scores = Scores(scores.version, scores.probabilities[start:end])
            start = end


def _may_go_again(exc: BaseException, waiting: _Waiting) -> bool:
    """Return True where the leader's time ran out and not this one's."""
    return isinstance(exc, DeadlineExceeded) and waiting.call.seconds_left() not in (None, 0)


def _copy_of(exc: BaseException) -> BaseException:
    """Copy an exception for another thread: one object raised in several mixes their tracebacks."""
    twin = copy.copy(exc)
    twin.__cause__ = exc
    return twin


def _abandoned() -> DeadlineExceeded:
    return DeadlineExceeded("The client went away before its turn came.")


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded(
        "The time allowed for the request ran out while it waited for its turn.",
        hint="Try again in a moment, or allow more time.",
    )
