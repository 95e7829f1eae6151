"""Inputs to rows: as many requests at a time as the service takes, and every answer in the journal.

The journal belongs to the thread that calls `Scorer.run`; other threads read pictures, send them and return results.
"""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice

from sightline.calls import PredictOptions
from sightline.client import Client
from sightline.errors import (
    SERVER_ERRORS,
    BadImage,
    DeadlineExceeded,
    ServerError,
    ServiceUnreachable,
    SightlineError,
    Unavailable,
)
from sightline.pictures import Upload
from sightline.results import Failed, Prediction

from clients.batch.errors import ScoringStopped
from clients.batch.journal import Journal, Pending, Result
from clients.batch.limiter import Limiter
from clients.batch.rows import FAILED
from clients.batch.sources import Source

RETRYABLE = (Unavailable, ServiceUnreachable, DeadlineExceeded)  # the service is at fault, not the pictures
SUSPICIOUS = (ServiceUnreachable, DeadlineExceeded)  # the service, unless it is ready and one picture always does it
SUSPECT_TRIES = 3  # of a request with a suspicious error while the service is ready
BYTES_PER_REQUEST = 500_000  # five photos; with 64 the rate was half (measured)
POLL_SECONDS = 0.5  # the longest wait for an answer before the clock is read again


@dataclass(frozen=True, slots=True)
class FailureLimit:
    """The failures at which a run stops. count: of rows; share: 0-1 of the rows so far; None: no limit."""

    count: int | None = None
    share: float | None = None
    rows_first: int = 100  # before a share counts

    def is_passed(self, failures: int, rows: int) -> bool:
        """Tell whether to stop."""
        if self.count is not None and failures > self.count:
            return True
        return self.share is not None and rows >= self.rows_first and failures > self.share * rows


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of a run. per_request: pictures; most_requests: at a time; patience_seconds: without an answer.

    version: that the service answers with at the start, and --changed-only compares with; None where it is unknown.
    labels: of the model; folders that are named like them are the truth.
    """

    options: PredictOptions
    version: int | None
    per_request: int = 64
    most_requests: int = 8
    patience_seconds: float = 300.0
    limit: FailureLimit = field(default_factory=FailureLimit)
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a run. rows: of all runs; answered: in this one."""

    total: int
    rows: int
    answered: int
    failures: int


@dataclass(slots=True)
class _Chunk:
    """The pictures of one request. tries: how often it failed while the service was ready."""

    items: Sequence[Pending]
    tries: int = 0
    began: float = 0.0

    def halves(self) -> "list[_Chunk]":
        middle = len(self.items) // 2
        return [_Chunk(self.items[:middle]), _Chunk(self.items[middle:])]


class Scorer:
    """Scores the inputs of a journal that have no row.

    report: called about twice a second and at the end. clock: monotonic seconds.
    """

    def __init__(
        self,
        source: Source,
        journal: Journal,
        client: Client,
        plan: Plan,
        *,
        report: Callable[[Progress], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._journal = journal
        self._client = client.with_options(max_retries=0)  # the limiter paces the retries
        self._plan = plan
        self._report = report
        self._clock = clock
        self._limiter = Limiter(plan.most_requests)
        self._again: deque[_Chunk] = deque()
        self._flying: dict[Future[list[Result]], _Chunk] = {}
        self._total = journal.total()
        self._rows = journal.done()
        self._failures = journal.failures()
        self._answered = 0
        self._good_at = self._resume_at = self._reported_at = clock()

    def run(self) -> Progress:
        """Score everything that is pending.

        Raises ScoringStopped where too many fail or the service stays away longer than the plan's patience; NotFound,
        AccessDenied or BadRequest where no picture can succeed. Whatever it raises, every answer is recorded.
        """
        chunks = self._chunks()
        pool = ThreadPoolExecutor(self._plan.most_requests, "score")
        try:
            while self._launch(pool, chunks) or self._flying:
                self._collect()
                self._check_limit()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            self._report(self._progress())
        return self._progress()

    def _chunks(self) -> Iterator[_Chunk]:
        pending = self._journal.pending()
        while items := list(islice(pending, self._plan.per_request)):
            yield _Chunk(items)

    def _launch(self, pool: ThreadPoolExecutor, chunks: Iterator[_Chunk]) -> bool:
        """Send requests up to the limiter's width. Returns False where nothing is left to send."""
        while len(self._flying) < self._limiter.requests and self._clock() >= self._resume_at:
            chunk = self._again.popleft() if self._again else next(chunks, None)
            if chunk is None:
                return False
            chunk.began = self._clock()
            self._flying[pool.submit(self._score, chunk.items)] = chunk
        return True

    def _collect(self) -> None:
        """Wait for an answer, at most half a second, and record it."""
        now = self._clock()
        if now < self._resume_at and not self._flying:
            time.sleep(min(POLL_SECONDS, self._resume_at - now))
        done, _ = wait(self._flying, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED) if self._flying else ((), ())
        for future in done:
            self._settle(self._flying.pop(future), future)
        if self._clock() - self._reported_at >= POLL_SECONDS:
            self._reported_at = self._clock()
            self._report(self._progress())

    def _settle(self, chunk: _Chunk, future: "Future[list[Result]]") -> None:
        try:
            results = future.result()
        except RETRYABLE as exc:
            self._try_again(chunk, exc)
        except SightlineError as exc:
            if not is_service_error(exc):
                raise  # an unknown model, a key that is refused: no picture will succeed
            self._take_apart(chunk, exc)
        else:
            self._limiter.succeeded()
            self._good_at = self._clock()
            self._record(results)

    def _record(self, results: Sequence[Result]) -> None:
        self._journal.record(results)
        self._rows += len(results)
        self._answered += len(results)
        self._failures += sum(result.status == FAILED for result in results)

    def _try_again(self, chunk: _Chunk, exc: SightlineError) -> None:
        """Slow down and send the request again, unless it is the request that fails."""
        now = self._clock()
        self._resume_at = now + self._limiter.refused(chunk.began, now)
        if now - self._good_at > self._plan.patience_seconds:
            raise ScoringStopped(
                f"No answer for {self._plan.patience_seconds:g} s (--patience): {exc.detail}",
                hint="Every answer is recorded: run the same command again when the service is back.",
            ) from exc
        if isinstance(exc, SUSPICIOUS) and self._is_ready():
            chunk.tries += 1
            if chunk.tries >= SUSPECT_TRIES:
                self._take_apart(chunk, exc)
                return
        self._again.append(chunk)

    def _take_apart(self, chunk: _Chunk, exc: SightlineError) -> None:
        """Halve a request that fails although the service is ready, until the picture at fault is alone."""
        if len(chunk.items) > 1:
            self._again.extend(chunk.halves())
        else:
            self._record([failed_result(chunk.items[0], exc)])

    def _is_ready(self) -> bool:
        try:
            return self._client.with_options(timeout=5).is_ready()
        except SightlineError:
            return False

    def _check_limit(self) -> None:
        if self._plan.limit.is_passed(self._failures, self._rows):
            raise ScoringStopped(
                f"{self._failures} of {self._rows} pictures failed, more than --max-failures allows.",
                hint="Read the reasons above; the same command with a higher limit goes on from here.",
            )

    def _progress(self) -> Progress:
        return Progress(self._total, self._rows, self._answered, self._failures)

    def _score(self, items: Sequence[Pending]) -> list[Result]:
        """One request. Runs in a thread; touches neither the journal nor the limiter."""
        return score_request(self._source, self._client, self._plan, items)


def score_request(source: Source, client: Client, plan: Plan, items: Sequence[Pending]) -> list[Result]:
    """Read the pictures of one request, send them, and match the answers. Raises the client's errors."""
    reader = _Reader(source, items, plan.version)
    started = time.perf_counter()
    outcomes = client.predict_uploads(reader, plan.options, plan.per_request, BYTES_PER_REQUEST)
    ms = (time.perf_counter() - started) * 1000
    results = [
        _result(item, sha256, outcome, ms)
        for item, sha256, outcome in zip(reader.sent, reader.digests, outcomes, strict=True)
    ]
    return results + reader.unchanged


def is_service_error(error: SightlineError) -> bool:
    """Tell whether the service failed at this request; another may succeed. False where it refused the caller."""
    return isinstance(error, ServerError) or (error.status or 0) >= SERVER_ERRORS


def failed_result(item: Pending, error: SightlineError) -> Result:
    """The row of a picture without an answer."""
    return _failed(item, "", error)


class _Reader:
    """Reads the pictures of one request one by one as they are sent, and keeps their digests."""

    def __init__(self, source: Source, items: Sequence[Pending], version: int | None) -> None:
        self._source = source
        self._items = items
        self._version = version
        self.sent: list[Pending] = []
        self.digests: list[str] = []
        self.unchanged: list[Result] = []

    def __iter__(self) -> Iterator[Upload | Failed]:
        for item in self._items:
            try:
                data = self._source.read(item.path, item.locator)
            except BadImage as exc:
                yield self._noted(item, "", Failed(item.path, exc))
                continue
            sha256 = hashlib.sha256(data).hexdigest()
            if item.before and (item.before.sha256, item.before.version) == (sha256, self._version):
                self.unchanged.append(Result(item.ordinal, unchanged=True))
                continue
            yield self._noted(item, sha256, Upload(str(item.ordinal), data))

    def _noted(self, item: Pending, sha256: str, member: Upload | Failed) -> Upload | Failed:
        self.sent.append(item)
        self.digests.append(sha256)
        return member


def _result(item: Pending, sha256: str, outcome: Prediction | Failed, ms: float) -> Result:
    if isinstance(outcome, Failed):
        return _failed(item, sha256, outcome.error)
    return Result(
        item.ordinal,
        label=outcome.label or "",  # never None: no min_score is sent
        score=outcome.score,
        label_id=outcome.id or "",
        top=tuple(
            (label.label, label.score, label.id) if label.id else (label.label, label.score) for label in outcome.top
        ),
        version=outcome.version,
        ms=round(ms, 3),
        sha256=sha256,
        previous_label=item.before.label if item.before else "",
    )


def _failed(item: Pending, sha256: str, error: SightlineError) -> Result:
    before = item.before.label if item.before else ""
    return Result(item.ordinal, FAILED, sha256=sha256, error_code=error.code, error=error.detail, previous_label=before)
