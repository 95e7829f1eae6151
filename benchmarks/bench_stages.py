"""Measure each stage of a request on one core: pictures per second, by model.

    python -m benchmarks.bench_stages [models]

Everything runs in one process on one CPU, one stage at a time. `the gateway` is the whole WSGI application with a model
server that answers at once; the call and the network come on top (`bench_model_server`).
"""

import argparse
import io
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from werkzeug.test import create_environ, run_wsgi_app

from benchmarks.bench import LARGE, MANY, SMALL, pictures_of
from benchmarks.raw_model import load, runtimes_of
from benchmarks.services import ROOT
from serving.backend.predictor import (
    ANYTIME,
    Call,
    ModelRef,
    Readiness,
    Scores,
    ServedModel,
    VersionState,
    readiness_of,
)
from serving.contract.card import ModelCard, read_card
from serving.contract.image import decode_picture
from serving.contract.image_limits import ImageLimits
from serving.contract.logs import configure
from serving.contract.prediction import top_k
from serving.contract.preprocessing import Tensor
from serving.contract.versions import version_dirs
from serving.gateway.app import create_app
from serving.gateway.http.forms import read_form
from serving.gateway.settings import Settings
from serving.tuning.load import form

ROUNDS = 5
ROUND_SECONDS = 0.4
TOP = 5

Work = Callable[[], object]


class Immediate:
    """A Predictor that answers at once, always the same."""

    def __init__(self, card: ModelCard) -> None:
        self._card = card
        self._row = np.full(len(card.labels), 1 / len(card.labels), np.float32)

    def describe(self, ref: ModelRef, call: Call = ANYTIME) -> ServedModel:  # noqa: ARG002
        return ServedModel(ref, 1, self._card)

    def predict(self, served: ServedModel, batch: Tensor, call: Call = ANYTIME) -> Scores:  # noqa: ARG002
        return Scores(1, np.broadcast_to(self._row, (len(batch), len(self._row))))

    def models(self) -> Mapping[str, Sequence[VersionState]]:
        return {}

    def readiness(self, call: Call = ANYTIME) -> Readiness:  # noqa: ARG002
        return readiness_of(self.models())

    def versions(self, name: str) -> Sequence[VersionState]:  # noqa: ARG002
        return ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="?", default=ROOT / "models")
    models = parser.parse_args().models
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before TensorFlow counts the CPUs
    configure("json", "WARNING")
    print(f"{'model':14}{'stage':32}{'pictures/s':>12}{'ms a picture':>14}")
    for name in (SMALL, LARGE):
        for stage, count, work in stages_of(models, name):
            seconds = seconds_of(work) / count
            print(f"{name:14}{stage:32}{1 / seconds:>12,.0f}{1000 * seconds:>14.3f}", flush=True)


def stages_of(models: Path, name: str) -> Iterator[tuple[str, int, Work]]:
    """Yield (stage, pictures per call of the work, the work) over all pictures of a model."""
    version = version_dirs(models / name)[-1]
    card, limits = read_card(version), ImageLimits()
    files = [data for _, data in pictures_of(models, name)]
    n = len(files)
    body, kind = form([(f"{index}.png", files[index % n]) for index in range(MANY)])
    boundary = kind.partition("boundary=")[2]
    yield f"read a form of {MANY}", MANY, lambda: read_form(body, boundary)
    yield "decode", n, lambda: [decode_picture(data, limits) for data in files]
    decoded = [decode_picture(data, limits) for data in files]
    yield "preprocess", n, lambda: [card.preprocessing.apply(picture) for picture in decoded]
    row = np.random.default_rng(0).dirichlet(np.ones(len(card.labels))).astype(np.float32)
    yield f"the best {TOP} labels", 1, lambda: top_k(row, card.label_names, TOP)
    app = create_app(Settings(), Immediate(card))
    single = [create_environ(f"/predict/{name}", method="POST", data=data, content_type="image/*") for data in files]
    whole = create_environ(f"/predict/{name}", method="POST", data=body, content_type=kind)
    yield "the gateway, one a request", n, partial(ask_each, app, list(zip(single, files, strict=True)))
    yield f"the gateway, a form of {MANY}", MANY, lambda: ask(app, whole, body)
    tensors = np.stack([card.preprocessing.apply(picture) for picture in decoded])
    for runtime in runtimes_of(version):
        for size in (1, MANY if name == SMALL else 4):
            batch = np.resize(tensors, (size, *tensors.shape[1:]))
            yield f"{runtime}, {size} at once", size, model_run(version, runtime, batch)


def ask(app: Any, environ: dict[str, Any], body: bytes) -> None:
    """Send one request to the application. Raises RuntimeError unless the answer is a 200."""
    answered = run_wsgi_app(app, {**environ, "wsgi.input": io.BytesIO(body)}, buffered=True)[1]
    if not answered.startswith("200"):
        raise RuntimeError(f"{environ['PATH_INFO']} was answered with {answered}")


def ask_each(app: Any, requests: Sequence[tuple[dict[str, Any], bytes]]) -> None:
    """Send requests one after the other."""
    for environ, body in requests:
        ask(app, environ, body)


def model_run(version: Path, runtime: str, batch: Tensor) -> Work:
    """Return one run of the model, as the model server does it."""
    model = load(version, runtime, threads=1, runs=1)
    signature = model.signatures["serving_default"]
    (feed,), (fetch,) = signature.inputs.values(), signature.outputs.values()
    return lambda: model.run({feed.name: batch}, [fetch.name])


def seconds_of(work: Work) -> float:
    """Return the median over rounds of the seconds of one call."""
    for _ in range(12):  # the first runs of a graph are slow
        work()
    rounds = []
    for _ in range(ROUNDS):
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < ROUND_SECONDS:
            work()
            count += 1
        rounds.append((time.perf_counter() - started) / count)
    return statistics.median(rounds)


if __name__ == "__main__":
    main()
