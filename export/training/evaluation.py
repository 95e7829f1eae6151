"""Judge a model on pictures that it has not seen."""

from typing import Any

import numpy as np

from export.data.datasets import Labels, Split, batches_of
from export.made import Probabilities, Servable
from export.training.calibration import calibration_error

EVALUATION_BATCH = 256  # pictures at once, fewer of large ones:
EVALUATION_PIXELS = 8 * 224 * 224  # the largest networks take a gigabyte for more
SMALLEST = 1e-7  # probabilities are kept above it, as Keras's cross-entropy does
TOP = 5


def predict(model: Servable, split: Split) -> Probabilities:
    """The model's probabilities for a whole split, a batch at a time: float32 (n, classes)."""
    height, width = split.tensors([0]).shape[1:3]
    batch = max(1, min(EVALUATION_BATCH, EVALUATION_PIXELS // (height * width)))
    return np.concatenate([model.probabilities(tensors) for _, tensors in batches_of(split, batch)])


def metrics_of(probabilities: Probabilities, labels: Labels, prefix: str = "test") -> dict[str, float]:
    """The numbers of a card, by name: `test_accuracy` and so on: 0-1, but for the loss (nats) and Matthews's (-1 to 1).

    Top-5 is left out where there are five classes or fewer, ROC AUC where a class has no picture.
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
    """One class against the rest, the mean over classes; None where a class has no picture or there is one class."""
    from sklearn.metrics import roc_auc_score

    classes = probabilities.shape[1]
    if len(np.unique(labels)) < classes or classes < 2:
        return None
    if classes == 2:
        return float(roc_auc_score(labels, probabilities[:, 1]))
    shares: Any = probabilities.astype(np.float64)
    shares = shares / shares.sum(axis=1, keepdims=True)  # scikit-learn insists on a sum of one, in float64
    return float(roc_auc_score(labels, shares, multi_class="ovr"))
