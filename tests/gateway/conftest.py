"""The application with a predictor whose answers one can compute by hand."""

import contextlib
import functools
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from serving.backend.backends import Backends
from serving.backend.methods import CLASSIFY, GET_MODEL_METADATA, GET_MODEL_STATUS, PREDICT, REGRESS, Method
from serving.backend.predictor import (
    ANYTIME,
    Call,
    ModelRef,
    Readiness,
    Scores,
    ServedModel,
    VersionChanged,
    VersionState,
    readiness_of,
)
from serving.backend.protos import wire_pb2 as wire
from serving.contract.card import ModelCard
from serving.contract.errors import UnknownModel, UnknownVersion
from serving.contract.preprocessing import Tensor
from serving.gateway.app import create_app
from serving.gateway.http.v1_backend import GrpcBackend
from serving.gateway.settings import Settings
from tests.backend.color_server import ColorServer, handler, shares
from tests.cards import COLORS


@dataclass
class ColorPredictor:
    """The share of each channel. fails: what every call raises. changes: how many times a newer version turns up.

    damage: what becomes of its answers.
    """

    fails: Exception | None = None
    changes: int = 0
    version: int = 1
    card: ModelCard = COLORS
    unproven: str | None = ""
    classifies: bool | None = True
    damage: Callable[[np.ndarray], np.ndarray] = lambda rows: rows
    batches: list[int] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    def describe(self, ref: ModelRef, call: Call = ANYTIME) -> ServedModel:  # noqa: ARG002
        self._maybe_fail()
        if ref.name != "colors":
            raise UnknownModel(f"there is no model {ref.name!r}", hint="Models that are served: colors.")
        if ref.version not in (None, self.version) or ref.label is not None:
            raise UnknownVersion(f"model {ref} is not there")
        return ServedModel(ref, self.version, self.card)

    def predict(self, served: ServedModel, batch: Tensor, call: Call = ANYTIME) -> Scores:
        self._maybe_fail()
        if self.changes:
            self.changes -= 1
            self.version += 1
            raise VersionChanged
        self.batches.append(len(batch))
        self.calls.append(call)
        sums = batch.astype(np.float32).sum(axis=(1, 2))
        return Scores(served.version, self.damage(shares(sums)))

    def models(self) -> Mapping[str, Sequence[VersionState]]:
        return {"colors": self.versions("colors"), "empty": ()}

    def readiness(self, call: Call = ANYTIME) -> Readiness:  # noqa: ARG002
        return readiness_of({"colors": self.versions("colors")})

    def versions(self, name: str) -> Sequence[VersionState]:
        self._maybe_fail()
        if name != "colors":
            raise UnknownModel(f"there is no model {name!r}")
        return [
            VersionState(self.version, "AVAILABLE", "", self.unproven, self.classifies),
            VersionState(0, "END", "it broke"),
        ]

    def _maybe_fail(self) -> None:
        if self.fails is not None:
            raise self.fails


@pytest.fixture
def predictor() -> ColorPredictor:
    return ColorPredictor()


@pytest.fixture
def settings() -> Settings:
    return Settings(max_image_bytes=20_000, max_image_pixels=10_000, max_images=4, max_request_bytes=50_000)


@pytest.fixture
def client(settings: Settings, predictor: ColorPredictor) -> FlaskClient:
    return create_app(settings, predictor).test_client()


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """Makes an encoded picture of one color."""

    def make(color: str = "red", kind: str = "PNG", size: tuple[int, int] = (3, 3)) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", size, color).save(buffer, kind)
        return buffer.getvalue()

    return make


@pytest.fixture
def red(picture: Callable[..., bytes]) -> bytes:
    return picture("red")


def metadata(request: wire.GetModelMetadataRequest, context: Any) -> wire.GetModelMetadataResponse:  # noqa: ARG001
    signatures = wire.SignatureDefMap()
    signature = signatures.signature_def["serving_default"]
    signature.inputs["image"].dtype = wire.DT_UINT8
    signature.outputs["probabilities"].dtype = wire.DT_FLOAT
    response = wire.GetModelMetadataResponse(model_spec=wire.ModelSpec(name=request.model_spec.name))
    response.metadata["signature_def"].Pack(signatures)
    return response


def no_examples(request: Any, context: Any) -> None:
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{request.model_spec.name} takes no examples")


@contextlib.contextmanager
def app_with_v1(settings: Settings, predictor: Any) -> Iterator[Flask]:
    """The application with /v1 over real gRPC to a server whose answers one can compute by hand."""
    colors = ColorServer()
    server = grpc.server(ThreadPoolExecutor(4))
    rows: list[tuple[Method[Any, Any], Any]] = [
        (PREDICT, colors.predict),
        (CLASSIFY, no_examples),
        (REGRESS, no_examples),
        (GET_MODEL_METADATA, metadata),
        (GET_MODEL_STATUS, colors.status),
    ]
    server.add_generic_rpc_handlers(tuple(handler(*row) for row in rows))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    backends = Backends([f"127.0.0.1:{port}"])
    yield create_app(settings, predictor, backend=functools.partial(GrpcBackend, backends))
    backends.close()
    server.stop(None).wait()


@pytest.fixture
def v1(settings: Settings, predictor: ColorPredictor) -> Iterator[FlaskClient]:
    """A client of the application with /v1."""
    with app_with_v1(settings, predictor) as app:
        yield app.test_client()
