"""A client without a gateway: straight to TensorFlow Serving, or to the embedded model server, over gRPC.

It decodes, preprocesses and labels with the gateway's own code and the card of the version that answers: the results
are the same to the bit. Its packages are those of the extra `gateway`.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack

from sightline import calls
from sightline.calls import PredictArguments, PredictOptions
from sightline.client import REQUEST_PICTURES, Client, requests_of, to_members
from sightline.errors import (
    BadImage,
    BadRequest,
    DeadlineExceeded,
    MissingPackage,
    NotFound,
    ServerError,
    SightlineError,
    Unavailable,
    install_hint,
)
from sightline.pictures import Picture, Upload, to_upload
from sightline.results import Failed, Label, Model, Prediction, Version
from sightline.retries import Retries

try:
    from serving.backend.backends import Backends
    from serving.backend.grpc_predictor import GrpcPredictor
    from serving.backend.predictor import ModelRef, VersionState
    from serving.backend.targets import UNIX
    from serving.classify import classify
    from serving.contract import errors as contract
    from serving.contract.card import ModelCard, card_to_json
    from serving.contract.image_limits import ImageLimits
    from serving.contract.prediction import Prediction as Outcome
    from serving.prepare import Stages
except ModuleNotFoundError as exc:
    raise MissingPackage(
        f"GrpcClient needs the gateway's packages, and {exc.name} is not installed.", hint=install_hint("gateway")
    ) from exc

T = TypeVar("T")

DEFAULT_TARGET = "127.0.0.1:8500"

# The nearest class of an error's ancestry decides.
TRANSLATED: dict[type[contract.SightlineError], type[SightlineError]] = {
    contract.BadRequest: BadRequest,
    contract.BadImage: BadImage,
    contract.NotFound: NotFound,
    contract.Unavailable: Unavailable,
    contract.DeadlineExceeded: DeadlineExceeded,
    contract.SightlineError: ServerError,
}


class GrpcClient:
    """Calls a model server. The methods, results and errors of `Client`, without faces and API keys.

    target: host:port of the model server's gRPC, or unix:/path. timeout: seconds for each call. max_retries: how often
    a call is made again when the server cannot be reached, is overloaded or not ready, with the pauses of `Client`.
    models: the names to list where the server cannot list its own, as TensorFlow Serving cannot. limits: of the
    pictures. Threads may share a client; it must not be carried over a fork.
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

    @classmethod
    def from_gateway(
        cls,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        max_retries: int = 2,
        models: Sequence[str] = (),
        limits: ImageLimits | None = None,
    ) -> Self:
        """Ask a gateway which model server it uses, and make a client of that one; the first where it has several.

        base_url, api_key: as for `Client`; the key needs the scope `admin`. Raises Unavailable where the model server
        listens at a socket that is not on this machine or belongs to another user.
        """
        with Client(base_url, api_key=api_key, max_retries=max_retries) as gateway:
            address = gateway.ask(calls.backends())[0]
        if address.startswith(UNIX) and not os.access(address.removeprefix(UNIX), os.W_OK):
            raise Unavailable(
                f"The gateway's model server listens at {address}, which cannot be reached from here.",
                hint="Run this on the gateway's machine as its user, or start it with `sightline serve --grpc-port`.",
            )
        return cls(address, timeout=timeout, max_retries=max_retries, models=models, limits=limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"GrpcClient({self.target!r})"

    def close(self) -> None:
        """Close the connection."""
        self._backends.close()

    def predict(self, image: Picture, **options: Unpack[PredictArguments]) -> Prediction:
        """See `Client.predict`."""
        return calls.single(self._outcomes([to_upload(image)], PredictOptions(**options)))

    def predict_many(self, images: Iterable[Picture], **options: Unpack[PredictArguments]) -> list[Prediction | Failed]:
        """See `Client.predict_many`."""
        checked = PredictOptions(**options)
        outcomes: list[Prediction | Failed] = []
        for group in requests_of(to_members(images), REQUEST_PICTURES):
            outcomes += group.merged(self._outcomes(group.uploads, checked) if group.uploads else [])
        return outcomes

    def models(self) -> list[Model]:
        """List the models of the server."""
        return self._ask(self._models)

    def model(self, name: str) -> Model:
        """Read one model, and its card where a version of it answers. Raises NotFound."""
        return self._ask(lambda: self._model(name))

    def is_ready(self) -> bool:
        """Tell whether a model answers: one attempt, False where the server cannot be reached."""
        try:
            return any(model.version is not None for model in self._models())
        except contract.SightlineError:
            return False

    def _models(self) -> list[Model]:
        return [Model(name, _versions(rows), None) for name, rows in self._predictor.models().items()]

    def _model(self, name: str) -> Model:
        model = Model(name, _versions(self._predictor.versions(name)), None)
        if model.version is None:
            return model
        return Model(name, model.versions, _card(self._predictor.describe(ModelRef(name)).card))

    def _outcomes(self, uploads: Sequence[Upload], options: PredictOptions) -> list[Prediction | Failed]:
        ref = ModelRef(options.model, options.version, options.label)
        classified = self._ask(
            lambda: classify(
                [upload.data for upload in uploads],
                ref,
                self._predictor,
                limits=self._limits,
                top=options.top,
                stages=Stages(),
                all_probabilities=options.probabilities == "all",
            )
        )
        version = classified.served.version
        return [
            _result(upload.name, outcome, options, version)
            for upload, outcome in zip(uploads, classified.outcomes, strict=True)
        ]

    def _ask(self, call: Callable[[], T]) -> T:
        """Make a call, again where it may succeed later. Every call may be repeated: none changes the server."""
        attempt = 0
        while True:
            try:
                return call()
            except contract.SightlineError as exc:
                delay = self._retries.backoff(attempt) if isinstance(exc, contract.Unavailable) else None
                if delay is None:
                    raise translated(exc) from exc
            self._wait(delay)
            attempt += 1

    def _wait(self, seconds: float) -> None:
        time.sleep(seconds)


def translated(error: contract.SightlineError) -> SightlineError:
    """The client's error for one of the gateway's own code, with its code and its words."""
    kind = next(TRANSLATED[base] for base in type(error).__mro__ if base in TRANSLATED)
    return kind(error.detail, hint=error.hint, code=error.code)


def _result(
    name: str, outcome: Outcome | contract.SightlineError, options: PredictOptions, version: int
) -> Prediction | Failed:
    if isinstance(outcome, contract.SightlineError):
        return Failed(name, translated(outcome))
    reason = outcome.reason_for_no_label(options.min_score or 0.0)
    return Prediction(
        name,
        outcome.label if reason is None else None,
        outcome.score,
        tuple(Label(label.label, label.index, label.score, label.id) for label in outcome.top),
        options.model,
        version,
        "",
        outcome.raw_score,
        reason,
        outcome.probabilities,
    )


def _versions(rows: Sequence[VersionState]) -> tuple[Version, ...]:
    return tuple(Version(row.version, row.state, row.error) for row in rows)


def _card(card: ModelCard) -> dict[str, object]:
    """The card as HTTP answers it."""
    data: dict[str, object] = json.loads(card_to_json(card))
    return data
