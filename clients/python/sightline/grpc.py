"""A client without a gateway: straight to TensorFlow Serving, or to the embedded model server, over gRPC.

Decoding, preprocessing and labels are those of the gateway, from the card of the version that answers: the results are
the same to the bit.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self, TypeVar

from serving.backend.backends import Backends
from serving.backend.grpc_predictor import GrpcPredictor
from serving.backend.predictor import ModelRef, VersionState
from serving.classify import Stages, classify
from serving.contract.errors import BadImage, SightlineError, Unavailable
from serving.contract.image_limits import ImageLimits
from serving.contract.prediction import Prediction as Outcome
from sightline import calls
from sightline.calls import Asked, Probabilities
from sightline.client import REQUEST_PICTURES, requests_of, to_members
from sightline.pictures import Picture, Upload, to_upload
from sightline.results import Failed, Model, Prediction, Version
from sightline.retries import Retries

T = TypeVar("T")

DEFAULT_TARGET = "127.0.0.1:8500"


class GrpcClient:
    """Calls a model server. The methods, results and errors of `Client`, less what only a gateway has (faces, keys).

    target: host:port of the model server's gRPC. timeout: seconds for each call. max_retries: how often a call is made
    again when the server cannot be reached, is overloaded or not ready, with the pauses of `Client`. models: the names
    to list where the server cannot list its own, as TensorFlow Serving cannot. limits: of the pictures. Threads may
    share a client; it must not be carried over a fork.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        timeout: float = 60.0,
        max_retries: int = 2,
        models: Sequence[str] = (),
        limits: ImageLimits | None = None,
    ) -> None:
        self.target = target
        self._limits = limits or ImageLimits()
        self._retries = Retries(max_retries)
        self._backends = Backends((target,))
        self._predictor = GrpcPredictor(self._backends, timeout_seconds=timeout, listed_models=models)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"GrpcClient({self.target!r})"

    def close(self) -> None:
        """Give the connection back."""
        self._backends.close()

    def predict(
        self,
        image: Picture,
        *,
        model: str,
        top: int = 5,
        version: int | None = None,
        label: str | None = None,
        min_score: float | None = None,
        probabilities: Probabilities = None,
    ) -> Prediction:
        """See `Client.predict`."""
        asked = Asked(model, top, version, label, min_score, probabilities)
        return calls.single(self._outcomes([to_upload(image)], asked))

    def predict_many(
        self,
        images: Iterable[Picture],
        *,
        model: str,
        top: int = 5,
        version: int | None = None,
        label: str | None = None,
        min_score: float | None = None,
        probabilities: Probabilities = None,
    ) -> list[Prediction | Failed]:
        """See `Client.predict_many`."""
        asked = Asked(model, top, version, label, min_score, probabilities)
        outcomes: list[Prediction | Failed] = []
        for group in requests_of(to_members(images), REQUEST_PICTURES):
            outcomes += group.merged(self._outcomes(group.uploads, asked) if group.uploads else [])
        return outcomes

    def models(self) -> list[Model]:
        """What the server serves."""
        return self._ask(self._models)

    def model(self, name: str) -> Model:
        """One model, and its card where a version of it answers. Raises UnknownModel."""
        return self._ask(lambda: self._model(name))

    def is_ready(self) -> bool:
        """Whether a model answers. Never raises, and does not wait."""
        try:
            return any(model.version is not None for model in self._models())
        except SightlineError:
            return False

    def _models(self) -> list[Model]:
        return [Model(name, _versions(rows), None) for name, rows in self._predictor.models().items()]

    def _model(self, name: str) -> Model:
        model = Model(name, _versions(self._predictor.versions(name)), None)
        if model.version is None:
            return model
        return Model(name, model.versions, self._predictor.describe(ModelRef(name)).card)

    def _outcomes(self, uploads: Sequence[Upload], asked: Asked) -> list[Prediction | Failed]:
        ref = ModelRef(asked.model, asked.version, asked.label)
        classified = self._ask(
            lambda: classify(
                [upload.data for upload in uploads],
                ref,
                self._predictor,
                limits=self._limits,
                top=asked.top,
                stages=Stages(),
                all_probabilities=asked.probabilities == "all",
            )
        )
        version = classified.served.version
        return [
            _result(upload.name, outcome, asked, version)
            for upload, outcome in zip(uploads, classified.outcomes, strict=True)
        ]

    def _ask(self, call: Callable[[], T]) -> T:
        """Make a call, again where it may succeed later. Every call may be repeated: none changes the server."""
        attempt = 0
        while True:
            try:
                return call()
            except Unavailable:
                delay = self._retries.backoff(attempt)
                if delay is None:
                    raise
            self._wait(delay)
            attempt += 1

    def _wait(self, seconds: float) -> None:
        time.sleep(seconds)


def _result(name: str, outcome: Outcome | BadImage, asked: Asked, version: int) -> Prediction | Failed:
    if isinstance(outcome, BadImage):
        return Failed(name, outcome)
    reason = outcome.reason_for_no_label(asked.min_score or 0.0)
    return Prediction(
        name,
        outcome.label if reason is None else None,
        outcome.score,
        outcome.top,
        asked.model,
        version,
        "",
        outcome.raw_score,
        reason,
        outcome.probabilities,
    )


def _versions(rows: Sequence[VersionState]) -> tuple[Version, ...]:
    return tuple(Version(row.version, row.state, row.error) for row in rows)
