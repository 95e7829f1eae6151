"""Make scores honest: of the pictures that get 0.8, eight in ten should be right.

Source: Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", 2017.
"""

from typing import Any

import numpy as np

from export.data.datasets import Labels
from export.made import Probabilities

SMALLEST = 1e-30  # probabilities below it count as it: float32 ends at 1e-38
BOUNDS = (0.05, 20.0)
FEWEST = 50  # pictures; a temperature of fewer is chance
BINS = 15


def fit_temperature(probabilities: Probabilities, labels: Labels) -> float:
    """The temperature with the smallest cross-entropy on a split that was not trained on; 1.0 where it is too small."""
    from scipy.optimize import minimize_scalar

    if len(labels) < FEWEST:
        return 1.0
    logits = np.log(np.maximum(probabilities.astype(np.float64), SMALLEST))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        peak = scaled.max(axis=1)
        return float(np.mean(peak + np.log(np.exp(scaled - peak[:, None]).sum(axis=1)) - _of(scaled, labels)))

    found = minimize_scalar(loss, bounds=tuple(np.log(BOUNDS)), method="bounded")
    return round(float(np.exp(found.x)), 4)


def with_temperature(core: Any, temperature: float) -> Any:
    """The Keras model whose logits are divided by the temperature. The logs of its probabilities will do as logits."""
    import keras

    if temperature == 1:
        return core
    logits = keras.ops.log(keras.ops.maximum(core.outputs[0], SMALLEST)) / temperature
    return keras.Model(core.inputs[0], keras.ops.softmax(logits))


def reliability(probabilities: Probabilities, labels: Labels) -> list[tuple[float, float, int]]:
    """(mean score, share that is right, pictures) for each bin of the best score that holds any; 15 bins of 0-1."""
    scores, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    members = [bins == index for index in range(BINS)]
    return [(float(scores[m].mean()), float(right[m].mean()), int(m.sum())) for m in members if m.any()]


def calibration_error(probabilities: Probabilities, labels: Labels) -> float:
    """The expected calibration error: the mean distance between score and share that is right, weighted by bin."""
    return sum(abs(score - right) * n for score, right, n in reliability(probabilities, labels)) / len(labels)


def _of(values: Any, labels: Labels) -> Any:
    return values[np.arange(len(labels)), labels]
