"""Image bytes to predictions: the whole flow of one request."""

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

LARGE_BYTES = 16_384  # of one image: from here on decoding takes longer than a switch to another thread
MANY_BYTES = 131_072  # of all images of a request: from here on small ones hold up other requests, too
SWAPS = 3  # version changes during one request before it fails with ModelNotReady


T = TypeVar("T")


@dataclass(slots=True)
class Stages:
    """Milliseconds of each stage of one request."""

    milliseconds: dict[str, float] = field(default_factory=dict)

    def timed(self, stage: str) -> "Timed":
        """Add the time of the block to `stage`."""
        return Timed(self.milliseconds, stage)


class Timed:
    """Context manager that times a block. A class: a generator costs ten times as much per request."""

    __slots__ = ("_milliseconds", "_stage", "_start")

    def __init__(self, milliseconds: dict[str, float], stage: str) -> None:
        self._milliseconds, self._stage = milliseconds, stage

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *exc: object) -> None:
        spent = (time.perf_counter() - self._start) * 1000
        self._milliseconds[self._stage] = self._milliseconds.get(self._stage, 0.0) + spent


class Executor(Protocol):
    """Run CPU-heavy work off the event loop, and wait for its result."""

    def __call__(self, work: Callable[[], T]) -> T: ...


def run_inline(work: Callable[[], T]) -> T:
    """Run the work at once, in this thread: the Executor for callers without an event loop, and for small work."""
    return work()


@dataclass(frozen=True, slots=True)
class Classified:
    """The result of one request: one outcome per image, in the order of the request.

    inputs: the model's input for each image, uint8 (h, w, c), None for a bad image; empty unless requested.
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
    executor: Executor = run_inline,
) -> Classified:
    """Classify encoded images in one batch. A bad image becomes its error and does not fail the others.

    pictures: bytes of image files, or the error of one that could not be read.
    top: number of labels per prediction. all_probabilities: add those of every class.
    with_inputs: add the model's input for each image.
    call: the request's deadline and metadata. executor: runs the work on large images.
    Raises the errors of the predictor; none for bad images.
    """
    expected = predictor.describe(ref, call)  # before decoding: an unknown model costs nothing
    run = executor if are_large(pictures) else run_inline
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
    best = top_k(row, card.label_names, top, card.class_ids).top
    temperature = card.calibration.temperature
    raw = None if temperature == 1 else float(without_calibration(row, temperature)[best[0].index])
    return Prediction(best, raw, tuple(row.tolist()) if all_probabilities else None)


def _input(item: Image.Image | BadImage, card: ModelCard) -> Pixels | None:
    return None if isinstance(item, BadImage) else card.preprocessing.pixels(item)


def are_large(pictures: Sequence[bytes | BadImage]) -> bool:
    """Return True where decoding takes so long that it must not hold up other requests."""
    sizes = [len(picture) for picture in pictures if isinstance(picture, bytes)]
    return max(sizes, default=0) >= LARGE_BYTES or sum(sizes) >= MANY_BYTES


def _prepared(
    pictures: Sequence[bytes | BadImage], card: ModelCard, limits: ImageLimits, stages: Stages
) -> tuple[list[Image.Image | BadImage], Tensor | None]:
    """Decode, and make a batch of the good images, None where all are bad: one switch of threads for both."""
    with stages.timed("decode"):
        decoded = decode_all(pictures, limits)
    good = _good(decoded)
    return decoded, to_batch(good, card, stages) if good else None


def _good(decoded: Sequence[Image.Image | BadImage]) -> list[Image.Image]:
    return [item for item in decoded if not isinstance(item, BadImage)]


def decode_all(pictures: Sequence[bytes | BadImage], limits: ImageLimits) -> list[Image.Image | BadImage]:
    """Decode each image; a bad one becomes its error."""
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

    batch: preprocessed by `served.card`. again: makes the batch by the card of another version, when that one answers.
    Raises ModelNotReady after SWAPS changes.
    """
    for _ in range(SWAPS):
        try:
            with stages.timed("predict"):
                return served, predictor.predict(served, batch, call)
        except VersionChanged:
            served = predictor.describe(served.ref, call)
            batch = again(served.card)
    raise ModelNotReady(f"Model {served.ref} changed {SWAPS} times during one request.", hint="Try again in a moment.")


def to_batch(images: Sequence[Image.Image], card: ModelCard, stages: Stages) -> Tensor:
    """Preprocess decoded images into one tensor (n, height, width, channels), as the card says."""
    with stages.timed("preprocess"):
        return np.stack([card.preprocessing.apply(image) for image in images])


def _decoded(picture: bytes | BadImage, limits: ImageLimits) -> Image.Image | BadImage:
    if isinstance(picture, BadImage):
        return picture
    try:
        return decode_picture(picture, limits)
    except BadImage as exc:
        return exc
