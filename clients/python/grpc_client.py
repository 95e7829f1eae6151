"""A client without a gateway: straight to TensorFlow Serving, or to the embedded model server, over gRPC.

Decoding, preprocessing and labels are those of the gateway, from the card of the version that answers: the results are
the same to the bit.
"""

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

from clients.python import calls
from clients.python.calls import Asked
from clients.python.client import REQUEST_PICTURES, requests_of, to_members
from clients.python.pictures import Picture, to_upload
from clients.python.results import Failed, Model, Prediction, Version
from serving.backend.backends import Backends
from serving.backend.grpc_predictor import GrpcPredictor
from serving.backend.predictor import ModelRef, VersionState
from serving.classify import Stages, classify
from serving.contract.errors import SightlineError
from serving.contract.image import ImageLimits

DEFAULT_TARGET = "127.0.0.1:8500"


class GrpcClient:
    """Calls a model server. The methods, results and errors of `Client`, less what only a gateway has (faces, keys).

    target: host:port of the model server's gRPC. timeout: seconds for each call. models: the names to list where the
    server cannot list its own, as TensorFlow Serving cannot. limits: of the pictures. Threads may share a client; it
    must not be carried over a fork.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        timeout: float = 60.0,
        models: Sequence[str] = (),
        limits: ImageLimits | None = None,
    ) -> None:
        self.target = target
        self._limits = limits or ImageLimits()
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
        self, image: Picture, *, model: str, top: int = 5, version: int | None = None, label: str | None = None
    ) -> Prediction:
        """See `Client.predict`."""
        upload = to_upload(image)
        return calls.single(list(self._outcomes([upload.data], [upload.name], Asked(model, top, version, label))))

    def predict_many(
        self,
        images: Iterable[Picture],
        *,
        model: str,
        top: int = 5,
        version: int | None = None,
        label: str | None = None,
    ) -> list[Prediction | Failed]:
        """See `Client.predict_many`."""
        asked = Asked(model, top, version, label)
        outcomes: list[Prediction | Failed] = []
        for group in requests_of(to_members(images), REQUEST_PICTURES):
            uploads = group.uploads
            data, names = [upload.data for upload in uploads], [upload.name for upload in uploads]
            outcomes += group.merged(list(self._outcomes(data, names, asked)) if uploads else [])
        return outcomes

    def models(self) -> list[Model]:
        """What the server serves."""
        return [Model(name, _versions(rows), None) for name, rows in self._predictor.models().items()]

    def model(self, name: str) -> Model:
        """One model, and its card where a version of it answers. Raises UnknownModel."""
        model = Model(name, _versions(self._predictor.versions(name)), None)
        if model.version is None:
            return model
        return Model(name, model.versions, self._predictor.describe(ModelRef(name)).card)

    def is_ready(self) -> bool:
        """Whether a model answers. Never raises."""
        try:
            return any(model.version is not None for model in self.models())
        except SightlineError:
            return False

    def _outcomes(self, data: Sequence[bytes], names: Sequence[str], asked: Asked) -> Iterator[Prediction | Failed]:
        ref = ModelRef(asked.model, asked.version, asked.label)
        classified = classify(data, ref, self._predictor, limits=self._limits, top=asked.top, stages=Stages())
        for name, outcome in zip(names, classified.outcomes, strict=True):
            if isinstance(outcome, SightlineError):
                yield Failed(name, outcome)
            else:
                version = classified.served.version
                yield Prediction(name, outcome.label, outcome.score, outcome.top, asked.model, version, "")


def _versions(rows: Sequence[VersionState]) -> tuple[Version, ...]:
    return tuple(Version(row.version, row.state, row.error) for row in rows)
