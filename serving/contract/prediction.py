"""Probabilities to labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Reason = Literal["uncertain"]  # why a prediction has no label

# How far a row may be from probabilities. The sum of a softmax of 10,000 classes is off by 5e-7 in float32, 0.0017 in
# float16 and 0.0056 in bfloat16 (measured: the numbers rounded, and TensorFlow's softmax in that type).
SUM_TOLERANCE = 0.02
RANGE_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Label:
    """One class and how likely it is. index: its row in the model's output; score: 0-1.

    id: the card's, such as a WordNet id; None where the model's ids say nothing more.
    """

    label: str
    index: int
    score: float
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's answer for one picture: the best classes, best first, never empty.

    raw_score: the best one's before calibration, 0-1; None where the model is not calibrated.
    probabilities: of all classes, in the order of the model's output; None where only the best were asked for.
    """

    top: tuple[Label, ...]
    raw_score: float | None = None
    probabilities: tuple[float, ...] | None = None

    @property
    def label(self) -> str:
        return self.top[0].label

    @property
    def id(self) -> str | None:
        return self.top[0].id

    @property
    def score(self) -> float:
        return self.top[0].score

    def reason_for_no_label(self, min_score: float) -> Reason | None:
        """Return the reason not to name the label: its score is below min_score (0-1). None: it may be named."""
        return None if self.score >= min_score else "uncertain"


def top_k(probabilities: npt.NDArray[np.float32], labels: Sequence[str], k: int, ids: Sequence[str] = ()) -> Prediction:
    """Return the k likeliest classes of one picture, best first; among equals the lower index first.

    probabilities: float32 (classes,). labels: one name per class. ids: one per class, or none. k: at least 1; more than
    there are means all.
    """
    order = np.argsort(-probabilities, kind="stable")[:k]
    indices, scores = order.tolist(), probabilities[order].tolist()
    if ids:
        return Prediction(tuple([Label(labels[i], i, score, ids[i]) for i, score in zip(indices, scores, strict=True)]))
    return Prediction(tuple([Label(labels[i], i, score) for i, score in zip(indices, scores, strict=True)]))


def faults(probabilities: npt.NDArray[np.float32], *, sum_to_one: bool) -> list[str]:
    """Say of each row why it cannot be probabilities, "" where it can.

    probabilities: float32 (n, classes). sum_to_one: each picture has one label; otherwise each label holds or does not.
    """
    lowest, highest = -RANGE_TOLERANCE, 1 + RANGE_TOLERANCE
    sums = probabilities.sum(axis=1)
    off = np.abs(sums - 1) if sum_to_one else np.zeros(len(sums))
    is_right = (probabilities >= lowest).all(axis=1) & (probabilities <= highest).all(axis=1) & (off <= SUM_TOLERANCE)
    if is_right.all():
        return [""] * len(sums)
    return ["" if right else _fault(row) for row, right in zip(probabilities, is_right.tolist(), strict=True)]


def _fault(row: npt.NDArray[np.float32]) -> str:
    if not np.isfinite(row).all():
        return "it answers numbers that are not finite"
    if row.min() < -RANGE_TOLERANCE or row.max() > 1 + RANGE_TOLERANCE:
        return f"it answers numbers from {row.min():.3g} to {row.max():.3g} where its card promises probabilities"
    return f"its probabilities sum to {row.sum():.3g}"


def without_calibration(probabilities: npt.NDArray[np.float32], temperature: float) -> npt.NDArray[np.float64]:
    """Undo the temperature that is in the model's graph, for one picture.

    probabilities: (classes,), softmax(logits / temperature). Returns softmax(logits), of the same shape: a power and a
    sum, because logits are the logarithms of their softmax up to a constant.
    Source: Guo et al., "On calibration of modern neural networks", 2017, section 4.2, undone.
    """
    relative = (probabilities.astype(np.float64) / (probabilities.max() or 1.0)) ** temperature
    undone: npt.NDArray[np.float64] = relative / (relative.sum() or 1.0)
    return undone
