"""Judge a model on pictures that it has not seen."""

from typing import Any

import numpy as np
import numpy.typing as npt

from export.datasets import Split, batches_of

EVALUATION_BATCH = 256
SMALLEST = 1e-7  # probabilities are kept above it, as Keras's cross-entropy does


def predict(model: Any, split: Split) -> npt.NDArray[np.float32]:
    """The model's probabilities for a whole split: float32 (n, classes)."""
    return np.concatenate([probabilities_of(model, tensors) for _, tensors in batches_of(split, EVALUATION_BATCH)])


def probabilities_of(model: Any, tensors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """What Keras answers in-process. tensors: uint8 or float32 (n, h, w, c). Returns float32 (n, classes)."""
    return np.asarray(model(tensors.astype(np.float32), training=False), np.float32)


def metrics_of(probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """`test_accuracy`, 0-1, and `test_loss`, the mean cross-entropy in nats."""
    right = probabilities.argmax(axis=1) == labels
    of_truth = probabilities[np.arange(len(labels)), labels].clip(SMALLEST, 1)
    return {"test_accuracy": float(right.mean()), "test_loss": float(-np.log(of_truth).mean())}
