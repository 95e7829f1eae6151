"""Calibrate scores: of the images that score 0.8, eight in ten should be right.

Source: Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", 2017.
"""

from typing import Any

import numpy as np

from export.data.datasets import Labels
from export.trained_model import Probabilities

SMALLEST = 1e-30  # lower bound of probabilities before the logarithm; float32 ends at 1e-38
BOUNDS = (0.05, 20.0)
FEWEST = 50  # images; a temperature fitted to fewer is noise
BINS = 15


def fit_temperature(probabilities: Probabilities, labels: Labels) -> float:
    """Find the temperature with the least cross-entropy on a split that was not trained on.

    Returns 1.0 for a split of fewer than FEWEST images.
    """
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
    """Divide the logits of a Keras model by the temperature. The logarithms of its probabilities serve as logits."""
    import keras

    if temperature == 1:
        return core
    logits = keras.ops.log(keras.ops.maximum(core.outputs[0], SMALLEST)) / temperature
    return keras.Model(core.inputs[0], keras.ops.softmax(logits))


def reliability(probabilities: Probabilities, labels: Labels) -> list[tuple[float, float, int]]:
    """Group images by their best score, in BINS bins of 0-1. Returns (mean score, share correct, images) per bin."""
    scores, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    members = [bins == index for index in range(BINS)]
    return [(float(scores[m].mean()), float(correct[m].mean()), int(m.sum())) for m in members if m.any()]


def calibration_error(probabilities: Probabilities, labels: Labels) -> float:
    """Expected calibration error: the mean distance between score and share correct, weighted by the bins' sizes."""
    return sum(abs(score - correct) * n for score, correct, n in reliability(probabilities, labels)) / len(labels)


def _of(values: Any, labels: Labels) -> Any:
    return values[np.arange(len(labels)), labels]
