"""A model so simple that its answers are computed by hand: it tells four shades of gray apart."""

import io
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

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
from serving.contract.card import (
    Calibration,
    Class,
    Golden,
    Input,
    ModelCard,
    Output,
    Source,
    Training,
)
from serving.contract.errors import SightlineError, UnknownModel, UnknownVersion
from serving.contract.preprocessing import Preprocessing, Tensor

SIDE = 8  # pixels
SHADES = ("black", "dark", "light", "white")


def shade_card(n_golden: int = 3) -> ModelCard:
    """The card of a model that tells four shades of gray apart."""
    preprocessing = Preprocessing(
        color="gray",
        height=SIDE,
        width=SIDE,
        fit="stretch",
        resize_short_side=None,
        interpolation="bilinear",
        antialias=True,
        polarity="as_is",
        dtype="uint8",
        scale=1.0,
        mean=(0.0,),
        std=(1.0,),
        channel_order="rgb",
    )
    return ModelCard(
        schema_version=1,
        name="shades",
        family="test",
        created="2026-01-01T00:00:00Z",
        input=Input("serving_default", "image", "uint8", (None, SIDE, SIDE, 1)),
        output=Output("probabilities", "probabilities"),
        preprocessing=preprocessing,
        labels=tuple(Class(str(index), name) for index, name in enumerate(SHADES)),
        calibration=Calibration(1.0),
        source=Source("dataset", "none", "0" * 64),
        training=Training(0, 0, 0, 0.0, "none", "none"),
        metrics={},
        golden=Golden(n_golden, 1e-5),
    )


WITH_IDS = tuple(Class(f"n{row}", name) for row, name in enumerate(SHADES))  # classes with ids, as ImageNet's have


def shade_probabilities(batch: Tensor) -> np.ndarray:
    """0.7 for the quarter of 0-255 that the mean gray falls into, 0.1 for each other."""
    shade = np.clip(batch.reshape(len(batch), -1).mean(axis=1) // 64, 0, 3).astype(int)
    return np.where(np.arange(4)[None] == shade[:, None], 0.7, 0.1).astype(np.float32)


@dataclass
class ShadePredictor:
    """Answers by arithmetic. version: the one that it says it is; trouble: raised by the next calls, one each."""

    version: int = 1
    trouble: list[SightlineError] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    card: ModelCard = field(default_factory=shade_card)
    seconds: float = 0.0  # that each batch takes
    inverted_from: int = 1_000  # versions from here on call white what is black

    def describe(self, ref: ModelRef, call: Call = ANYTIME) -> ServedModel:  # noqa: ARG002
        if ref.name != self.card.name:
            raise UnknownModel(f"there is no model {ref.name!r}", hint="Models that are served: shades.")
        if ref.version not in (None, self.version):
            raise UnknownVersion(f"no version {ref.version}")
        return ServedModel(ref, self.version, self.card)

    def predict(self, served: ServedModel, batch: Tensor, call: Call = ANYTIME) -> Scores:  # noqa: ARG002
        if self.trouble:
            raise self.trouble.pop(0)
        self.batches.append(len(batch))
        time.sleep(self.seconds)
        if self.version >= self.inverted_from:
            batch = 255 - batch
        return Scores(served.version, shade_probabilities(batch))

    def models(self) -> Mapping[str, Sequence[VersionState]]:
        return {self.card.name: self.versions(self.card.name)}

    def readiness(self, call: Call = ANYTIME) -> Readiness:  # noqa: ARG002
        return readiness_of(self.models())

    def versions(self, name: str) -> Sequence[VersionState]:
        if name != self.card.name:
            raise UnknownModel(f"there is no model {name!r}")
        return (VersionState(self.version, "AVAILABLE", ""),)


@dataclass
class Service:
    """A gateway that runs on a port of this machine."""

    port: int
    predictor: ShadePredictor
    stop: Callable[[], None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


Serve = Callable[..., Service]


def png(gray: int, side: int = 12) -> bytes:
    """The bytes of an evenly gray picture."""
    buffer = io.BytesIO()
    Image.new("L", (side, side), gray).save(buffer, "PNG")
    return buffer.getvalue()


def noise(side: int) -> bytes:
    """The bytes of a picture that does not compress: about side * side."""
    buffer = io.BytesIO()
    Image.frombytes("L", (side, side), random.Random(1).randbytes(side * side)).save(buffer, "PNG")
    return buffer.getvalue()


def golden_card(n: int) -> ModelCard:
    """`shade_card` that promises n golden examples."""
    return replace(shade_card(), golden=Golden(n, 1e-5))
