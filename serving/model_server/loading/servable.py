"""Load a version from its directory: open, batch, warm up, count."""

import ctypes
import gc
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.contract.versions import SERVE_TAG
from serving.model_server.loading.batching import BatchingRuntime, BatchScheduler, BatchSettings
from serving.model_server.loading.warmup import warm_up
from serving.model_server.metrics import Metrics
from serving.runtimes.opening import LITERT, TENSORFLOW, RuntimeName, open_version
from serving.runtimes.runtime import Runtime
from serving.runtimes.tensors import Array

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """Settings of a load. batching: None runs every request on its own. warm_up: replay recorded requests, each
    `warmup_iterations` times.

    intra_op_threads: of one run, 0 for as many as there are CPUs. prefer_tflite: a version's model.tflite answers where
    its golden examples agree.
    """

    batching: BatchSettings | None = None
    warm_up: bool = True
    warmup_iterations: int = 1
    tags: tuple[str, ...] = (SERVE_TAG,)
    intra_op_threads: int = 0
    prefer_tflite: bool = False


class Servable:
    """A version that answers, perhaps batched. unproven: see OpenedVersion."""

    def __init__(self, model: Runtime, batched: BatchingRuntime | None, unproven: str) -> None:
        self.unproven = unproven
        self._model = model
        self._runs = batched if batched is not None else model
        self.signatures: Mapping[str, Any] = model.signatures

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], deadline: float | None = None) -> list[Array]:
        """Run the graph, batched where batching is on. See Runtime.run."""
        return self._runs.run(feeds, fetches, deadline)

    def close(self) -> None:
        """Free the memory and hand it to the system: the allocator would keep most of it."""
        self._model.close()
        gc.collect()
        _trim()


def loader(settings: LoadSettings, metrics: Metrics) -> Callable[[str, int, Path], Servable]:
    """Make the function that loads a version for a Repository, of name, version, directory.

    It raises CallError, and whatever else reading a folder of unknown content may raise.
    """
    scheduler = BatchScheduler(settings.batching, metrics) if settings.batching is not None else None
    runtimes: tuple[RuntimeName, ...] = (LITERT, TENSORFLOW) if settings.prefer_tflite else (TENSORFLOW,)

    def load(name: str, version: int, directory: Path) -> Servable:
        started = time.monotonic()
        try:
            servable = _load(name, version, directory)
            _warm_up(servable, name, version, directory)
        except Exception:
            metrics.load_attempts.add(str(directory), "fail")
            raise
        metrics.load_attempts.add(str(directory), "success")
        metrics.load_latency.add(str(directory), amount=int((time.monotonic() - started) * 1e6))
        return servable

    def _load(name: str, version: int, directory: Path) -> Servable:
        started = time.monotonic()
        opened = open_version(directory, runtimes, tags=settings.tags, threads=settings.intra_op_threads)
        if opened.why_not_litert:
            logger.warning(
                "%s version %d runs on TensorFlow, which takes longer: %s", name, version, opened.why_not_litert
            )
        else:
            logger.info("%s version %d runs on %s", name, version, opened.name)
        metrics.load_stages.observe((time.monotonic() - started) * 1e6, str(directory), "load")
        if opened.unproven:
            logger.warning("%s version %d is unproven: %s", name, version, opened.unproven)
        batched = BatchingRuntime(opened.runtime, scheduler) if scheduler is not None else None
        return Servable(opened.runtime, batched, opened.unproven)

    def _warm_up(servable: Servable, name: str, version: int, directory: Path) -> None:
        if not settings.warm_up:
            return
        started = time.monotonic()
        try:
            count = warm_up(servable, directory, metrics, settings.warmup_iterations)
        except Exception:
            servable.close()
            raise
        if count:
            logger.info(
                "%s version %d: %d warm-up requests in %.2f s", name, version, count, time.monotonic() - started
            )

    return load


def _trim() -> None:
    """Ask glibc to hand free memory back; another libc has no such call and needs none."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        logger.debug("this C library has no malloc_trim")
