"""Bytes to predictions: the whole story of one request."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.backend.predictor import ANYTIME, Call, ModelRef, Predictor, Scores, ServedModel, VersionChanged
from serving.contract.card import ModelCard
from serving.contract.errors import BadImage, ModelNotReady
from serving.contract.image import Pixels, decode_picture
from serving.contract.image_limits import ImageLimits
from serving.contract.prediction import Prediction, top_k, without_calibration
from serving.contract.preprocessing import Tensor

LARGE_BYTES = 16_384  # of a picture: one takes longer than handing it to another thread does
MANY_BYTES = 131_072  # of all pictures of a request, small ones: so many hold up others
SWAPS = 3  # how many versions may replace each other under one request before it is told to come back


T = TypeVar("T")


@dataclass(slots=True)
class Stages:
    """Milliseconds that one request spent in each stage."""

    milliseconds: dict[str, float] = field(default_factory=dict)

    def timed(self, stage: str) -> "Timed":
        """Add the time of the block to `stage`."""
        return Timed(self.milliseconds, stage)


class Timed:
    """A block on the clock. A class, because a generator costs a request ten times as much."""

    __slots__ = ("_milliseconds", "_stage", "_start")

    def __init__(self, milliseconds: dict[str, float], stage: str) -> None:
        self._milliseconds, self._stage = milliseconds, stage

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *exc: object) -> None:
        spent = (time.perf_counter() - self._start) * 1000
        self._milliseconds[self._stage] = self._milliseconds.get(self._stage, 0.0) + spent


class Elsewhere(Protocol):
    """Runs what computes for long where it holds up nobody, and waits for it."""

    def __call__(self, work: Callable[[], T]) -> T: ...


def here(work: Callable[[], T]) -> T:
    """The Elsewhere of those whom nobody waits for: at once, in this thread."""
    return work()


@dataclass(frozen=True, slots=True)
class Classified:
    """What one request is answered: one outcome for each picture, in the order in which they were sent.

    inputs: what the model saw of each, uint8 (h, w, c), None of a bad one; empty where that was not asked for.
    """

    served: ServedModel
    outcomes: tuple[Prediction | BadImage, ...]
    inputs: tuple[Pixels | None, ...] = ()


def classify(
    pictures: Sequence[bytes | BadImage],
    ref: ModelRef,
    predictor: Predictor,
    *,
    limits: ImageLimits,
    top: int,
    stages: Stages,
    call: Call = ANYTIME,
    all_probabilities: bool = False,
    with_inputs: bool = False,
    elsewhere: Elsewhere = here,
) -> Classified:
    """Classify encoded pictures in one batch. A bad picture becomes its error and does not fail its neighbours.

    pictures: bytes of picture files, or the error of one that could not even be read.
    top: how many labels each prediction names; all_probabilities: and those of every class beside them.
    with_inputs: tell what the model saw, too.
    call: the request's deadline and what travels with it. elsewhere: runs the work on large pictures.
    Raises what the predictor raises; nothing for the pictures.
    """
    expected = predictor.describe(ref, call)  # before decoding: an unknown model costs nothing
    run = elsewhere if are_large(pictures) else here
    decoded, batch = run(lambda: _prepared(pictures, expected.card, limits, stages))
    served, scores = expected, None
    if batch is not None:

        def again(card: ModelCard) -> Tensor:
            return run(lambda: to_batch(_good(decoded), card, stages))

        served, scores = scored(batch, again, expected, predictor, stages=stages, call=call)
    rows = iter(() if scores is None else scores.probabilities)
    return Classified(
        served,
        tuple(
            item if isinstance(item, BadImage) else _prediction(next(rows), served.card, top, all_probabilities)
            for item in decoded
        ),
        tuple(_input(item, served.card) for item in decoded) if with_inputs else (),
    )


def _prediction(row: npt.NDArray[np.float32], card: ModelCard, top: int, all_probabilities: bool) -> Prediction:
    best = top_k(row, card.label_names, top).top
    temperature = card.calibration.temperature
    raw = None if temperature == 1 else float(without_calibration(row, temperature)[best[0].index])
    return Prediction(best, raw, tuple(row.tolist()) if all_probabilities else None)


def _input(item: Image.Image | BadImage, card: ModelCard) -> Pixels | None:
    return None if isinstance(item, BadImage) else card.preprocessing.pixels(item)


def are_large(pictures: Sequence[bytes | BadImage]) -> bool:
    """Whether decoding them takes so long that others should not wait for it."""
    sizes = [len(picture) for picture in pictures if isinstance(picture, bytes)]
    return max(sizes, default=0) >= LARGE_BYTES or sum(sizes) >= MANY_BYTES


def _prepared(
    pictures: Sequence[bytes | BadImage], card: ModelCard, limits: ImageLimits, stages: Stages
) -> tuple[list[Image.Image | BadImage], Tensor | None]:
    """The pictures decoded, and a batch of the good ones, None where all are bad: one turn of a thread for both."""
    with stages.timed("decode"):
        decoded = decode_all(pictures, limits)
    good = _good(decoded)
    return decoded, to_batch(good, card, stages) if good else None


def _good(decoded: Sequence[Image.Image | BadImage]) -> list[Image.Image]:
    return [item for item in decoded if not isinstance(item, BadImage)]


def decode_all(pictures: Sequence[bytes | BadImage], limits: ImageLimits) -> list[Image.Image | BadImage]:
    """Each picture decoded, or why it is not."""
    return [_decoded(picture, limits) for picture in pictures]


def scored(
    batch: Tensor,
    again: Callable[[ModelCard], Tensor],
    served: ServedModel,
    predictor: Predictor,
    *,
    stages: Stages,
    call: Call,
) -> tuple[ServedModel, Scores]:
    """Predict with the version that the batch was made for, even while versions are being swapped.

    batch: as `served.card` wants it. again: makes it as another card wants it, when another version answers. Raises
    ModelNotReady.
    """
    for _ in range(SWAPS):
        try:
            with stages.timed("predict"):
                return served, predictor.predict(served, batch, call)
        except VersionChanged:
            served = predictor.describe(served.ref, call)
            batch = again(served.card)
    raise ModelNotReady(f"model {served.ref} changed {SWAPS} times during one request", hint="Try again in a moment.")


def to_batch(images: Sequence[Image.Image], card: ModelCard, stages: Stages) -> Tensor:
    """Decoded pictures as one tensor (n, height, width, channels), as the card's preprocessing says."""
    with stages.timed("preprocess"):
        return np.stack([card.preprocessing.apply(image) for image in images])


def _decoded(picture: bytes | BadImage, limits: ImageLimits) -> Image.Image | BadImage:
    if isinstance(picture, BadImage):
        return picture
    try:
        return decode_picture(picture, limits)
    except BadImage as exc:
        return exc
