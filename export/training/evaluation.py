"""Evaluate a model on images that it was not trained on."""

from typing import Any

import numpy as np

from export.data.datasets import Labels, Split, batches_of
from export.trained_model import Probabilities, Servable
from export.training.calibration import calibration_error

EVALUATION_BATCH = 256  # images in a batch
EVALUATION_PIXELS = 8 * 224 * 224  # in a batch; the largest networks need a gigabyte for more
SMALLEST = 1e-7  # lower bound of probabilities, as in Keras's cross-entropy
TOP = 5


def predict(model: Servable, split: Split) -> Probabilities:
    """Run the model on a whole split, in batches. Returns float32 (n, classes)."""
    height, width = split.tensors([0]).shape[1:3]
    batch = max(1, min(EVALUATION_BATCH, EVALUATION_PIXELS // (height * width)))
    return np.concatenate([model.probabilities(tensors) for _, tensors in batches_of(split, batch)])


def metrics_of(probabilities: Probabilities, labels: Labels, prefix: str = "test") -> dict[str, float]:
    """Compute the metrics of a card by name, `test_accuracy` and so on.

    All are 0-1, except the loss (nats) and Matthews's coefficient (-1 to 1). Top-5 accuracy needs more than five
    classes, ROC AUC an image of every class; otherwise they are left out.
    """
    from sklearn.metrics import f1_score, matthews_corrcoef

    guesses = probabilities.argmax(axis=1)
    of_truth = probabilities[np.arange(len(labels)), labels].clip(SMALLEST, 1)
    present = np.unique(labels)
    values = {
        "accuracy": float((guesses == labels).mean()),
        "loss": float(-np.log(of_truth).mean()),
        "balanced_accuracy": float(np.mean([(guesses[labels == label] == label).mean() for label in present])),
        "macro_f1": float(f1_score(labels, guesses, average="macro", zero_division=0.0, labels=present)),
        "matthews": float(matthews_corrcoef(labels, guesses)),
        "calibration_error": calibration_error(probabilities, labels),
    }
    if probabilities.shape[1] > TOP:
        best = np.argsort(-probabilities, axis=1)[:, :TOP]
        values["top5_accuracy"] = float((best == labels[:, None]).any(axis=1).mean())
    area = _area_under_roc(probabilities, labels)
    if area is not None:
        values["roc_auc"] = area
    return {f"{prefix}_{name}": value for name, value in values.items()}


def _area_under_roc(probabilities: Probabilities, labels: Labels) -> float | None:
    """Mean over the classes of one against the rest; None where a class has no image or there is a single class."""
    from sklearn.metrics import roc_auc_score

    classes = probabilities.shape[1]
    if len(np.unique(labels)) < classes or classes < 2:
        return None
    if classes == 2:
        return float(roc_auc_score(labels, probabilities[:, 1]))
    shares: Any = probabilities.astype(np.float64)
    shares = shares / shares.sum(axis=1, keepdims=True)  # scikit-learn requires rows that sum to one in float64
    return float(roc_auc_score(labels, shares, multi_class="ovr"))
