"""Probabilities to labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Label:
    """One class and how likely it is. index: its row in the model's output; score: 0-1."""

    label: str
    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one picture: the best classes, best first, never empty."""

    top: tuple[Label, ...]

    @property
    def label(self) -> str:
        return self.top[0].label

    @property
    def score(self) -> float:
        return self.top[0].score


def top_k(probabilities: npt.NDArray[np.float32], labels: Sequence[str], k: int) -> Prediction:
    """The k likeliest classes of one picture, best first; among equals the lower index first.

    probabilities: float32 (classes,). labels: one name per class. k: at least 1; more than there are means all.
    """
    order = np.argsort(-probabilities, kind="stable")[:k]
    return Prediction(tuple(Label(labels[i], int(i), float(probabilities[i])) for i in order))
