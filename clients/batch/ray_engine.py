"""`--engine ray`: the scorer as a map over actors of a Ray cluster. The journal stays with the command.

Every node must see the pictures under the same paths, reach the service, and have this package installed. Ray repeats
the work of a lost node; every answer is in the journal, so that the same command resumes.
"""

import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from sightline.client import Client
from sightline.errors import SightlineError

from clients.batch.errors import ScoringStopped
from clients.batch.journal import Journal, Pending, Result
from clients.batch.limiter import Limiter
from clients.batch.rows import FAILED
from clients.batch.scorer import RETRYABLE, Plan, Progress, failed_result, is_service_error, score_request
from clients.batch.sources import SourceOptions, import_extra, open_source

WAVE = 20_000  # inputs that Ray gets at a time; more would only wait in its memory


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """The settings of an actor: the source and the service. folder: the base of relative paths."""

    folder: str
    source: str
    reading: SourceOptions
    url: str
    api_key: str | None
    timeout: float
    plan: Plan


class RayScorer:
    """The actor: opens the source and a client once, then turns batches of pickled inputs into pickled results."""

    def __init__(self, config: WorkerConfig) -> None:
        os.chdir(config.folder)  # an actor is a process of its own
        self._config = config
        self._source = open_source(config.source, config.reading)
        self._client = Client(config.url, api_key=config.api_key, timeout=config.timeout, max_retries=0)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        items = [pickle.loads(item) for item in batch["item"]]  # pickled by the command itself
        results = score_persistently(
            lambda some: score_request(self._source, self._client, self._config.plan, some), items, self._config.plan
        )
        return {"results": np.array([pickle.dumps(results)], dtype=object)}


def score_persistently(
    score: Callable[[Sequence[Pending]], list[Result]],
    items: Sequence[Pending],
    plan: Plan,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Result]:
    """Score one request: repeat it while the service is unavailable, halve it where a picture makes it fail.

    Raises ScoringStopped when the plan's patience ends, and any other error of the client at once.
    """
    limiter, began = Limiter(1), clock()
    while True:
        try:
            return score(items)
        except RETRYABLE as exc:
            if clock() - began > plan.patience_seconds:
                raise ScoringStopped(f"No answer for {plan.patience_seconds:g} s (--patience): {exc.detail}") from exc
            sleep(limiter.refused(clock(), clock()))
        except SightlineError as exc:
            if not is_service_error(exc):
                raise
            if len(items) == 1:
                return [failed_result(items[0], exc)]
            retried = (score_persistently(score, half, plan, clock=clock, sleep=sleep) for half in _halves(items))
            return [result for half in retried for result in half]


def _halves(items: Sequence[Pending]) -> tuple[Sequence[Pending], Sequence[Pending]]:
    middle = len(items) // 2
    return items[:middle], items[middle:]


def run_on_ray(
    address: str | None, config: WorkerConfig, journal: Journal, report: Callable[[Progress], None]
) -> Progress:
    """Score everything that is pending on a cluster. address: as `ray.init` takes it; None starts Ray on this machine.

    Raises ScoringStopped, and the client's errors. Whatever it raises, every answer is recorded.
    """
    ray = import_extra("ray", "ray")
    data = import_extra("ray.data", "ray")
    ray.init(address=address, log_to_driver=False, logging_level="ERROR", ignore_reinit_error=True)
    data.DataContext.get_current().enable_progress_bars = False
    total, rows, failures, answered = journal.total(), journal.done(), journal.failures(), 0
    try:
        for results in _answers(data, config, journal):
            journal.record(results)
            rows, answered = rows + len(results), answered + len(results)
            failures += sum(result.status == FAILED for result in results)
            report(Progress(total, rows, answered, failures))
            if config.plan.limit.is_passed(failures, rows):
                raise ScoringStopped(f"{failures} of {rows} pictures failed, more than --max-failures allows.")
    except ray.exceptions.RayError as exc:
        raise ScoringStopped(
            f"The cluster stopped: {str(exc).strip().splitlines()[-1]}",
            hint="Every answer is recorded: run the same command again.",
        ) from exc
    finally:
        ray.shutdown()
    return Progress(total, rows, answered, failures)


def _answers(data: Any, config: WorkerConfig, journal: Journal) -> Iterator[list[Result]]:
    pending = journal.pending()
    while wave := list(islice(pending, WAVE)):
        requests = -(-len(wave) // config.plan.per_request)
        items = [{"item": pickle.dumps(item)} for item in wave]
        answers = data.from_items(items, override_num_blocks=min(requests, 2 * config.plan.most_requests)).map_batches(
            RayScorer,
            fn_constructor_args=(config,),
            batch_size=config.plan.per_request,
            compute=data.ActorPoolStrategy(min_size=1, max_size=config.plan.most_requests),
            num_cpus=1,
        )
        for row in answers.iter_rows():
            results: list[Result] = pickle.loads(row["results"])
            yield results
