"""Metrics, computed by hand."""

import numpy as np
import pytest

from export.training.evaluation import metrics_of


def test_metrics_are_those_of_the_definitions() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.7, 0.3]], np.float32)
    metrics = metrics_of(probabilities, np.array([0, 0, 1, 1]))
    assert metrics["test_accuracy"] == 0.75
    assert metrics["test_balanced_accuracy"] == 0.75
    assert metrics["test_matthews"] == pytest.approx(2 / np.sqrt(12))
    assert metrics["test_roc_auc"] == 1.0
    assert "test_top5_accuracy" not in metrics
