"""Image bytes to predictions: the whole flow of one request."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serving.backend.predictor import ANYTIME, Call, ModelRef, Predictor, Scores, ServedModel, VersionChanged
from serving.contract.card import ModelCard
from serving.contract.errors import BadImage, ModelFailed, ModelNotReady
from serving.contract.executor import Executor, run_inline
from serving.contract.image import Pixels
from serving.contract.image_limits import ImageLimits
from serving.contract.prediction import Prediction, faults, top_k, without_calibration
from serving.contract.preprocessing import Tensor
from serving.prepare import Prepared, Stages, prepare

SWAPS = 3  # version changes during one request before it fails with ModelNotReady


@dataclass(frozen=True, slots=True)
class Classified:
    """The result of one request: one outcome per image, in the order of the request.

    inputs: the model's input for each image, uint8 (h, w, c), None for a bad image; empty unless requested.
    """

    served: ServedModel
    outcomes: tuple[Prediction | BadImage | ModelFailed, ...]
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
    call: the request's deadline and metadata. executor: runs what takes long to decode.
    Raises the errors of the predictor and those of `prepare`; none for bad images. An image for which the model answers
    no probabilities becomes ModelFailed, and does not fail the others either.
    """
    expected = predictor.describe(ref, call)  # before decoding: an unknown model costs nothing

    def prepared_for(card: ModelCard) -> Prepared:
        return prepare(pictures, card, limits, stages=stages, call=call, executor=executor, with_inputs=with_inputs)

    prepared = prepared_for(expected.card)
    served, scores = expected, None
    if len(prepared.batch):

        def again(card: ModelCard) -> Tensor:
            nonlocal prepared
            prepared = prepared_for(card)
            return prepared.batch

        served, scores = scored(prepared.batch, again, expected, predictor, stages=stages, call=call)
    rows = iter(() if scores is None else _predictions(scores, served.card, top, all_probabilities))
    return Classified(
        served,
        tuple(next(rows) if error is None else error for error in prepared.errors),
        prepared.inputs,
    )


def failures(scores: Scores, card: ModelCard) -> list[ModelFailed | None]:
    """Return for each row the error of an answer that is no probabilities, such as NaN; None where it is."""
    return [
        ModelFailed(f"Model {card.name} fails on this image: {fault}.", hint="See docs/trust.md.") if fault else None
        for fault in faults(scores.probabilities, sum_to_one=card.output.kind == "probabilities")
    ]


def _predictions(
    scores: Scores, card: ModelCard, top: int, all_probabilities: bool
) -> Iterator[Prediction | ModelFailed]:
    for row, failure in zip(scores.probabilities, failures(scores, card), strict=True):
        yield _prediction(row, card, top, all_probabilities) if failure is None else failure


def _prediction(row: npt.NDArray[np.float32], card: ModelCard, top: int, all_probabilities: bool) -> Prediction:
    best = top_k(row, card.label_names, top, card.class_ids).top
    temperature = card.calibration.temperature
    raw = None if temperature == 1 else float(without_calibration(row, temperature)[best[0].index])
    return Prediction(best, raw, tuple(row.tolist()) if all_probabilities else None)


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

    batch: preprocessed by `served.card`. again: makes it anew for a version that wants other preprocessing.
    Raises ModelNotReady after SWAPS changes.
    """
    for _ in range(SWAPS):
        try:
            with stages.timed("predict"):
                return served, predictor.predict(served, batch, call)
        except VersionChanged:
            before = served.card.preprocessing
            served = predictor.describe(served.ref, call)
            if served.card.preprocessing != before:
                batch = again(served.card)
    raise ModelNotReady(f"Model {served.ref} changed {SWAPS} times during one request.", hint="Try again in a moment.")
