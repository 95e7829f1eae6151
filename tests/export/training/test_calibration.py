"""Temperatures of scores that are known to be overconfident."""

import numpy as np
import pytest

from export.training.calibration import calibration_error, fit_temperature, reliability


def test_temperature_of_overconfident_scores_is_found() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (4000, 3))
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([random.choice(3, p=row) for row in honest])
    boastful = honest**2.5 / (honest**2.5).sum(axis=1, keepdims=True)
    assert fit_temperature(boastful.astype(np.float32), labels) == pytest.approx(2.5, rel=0.1)
    assert calibration_error(honest, labels) < 0.03 < calibration_error(boastful, labels)
    assert sum(n for _, _, n in reliability(honest, labels)) == 4000


def test_temperature_of_few_images_stays_one() -> None:
    assert fit_temperature(np.full((10, 2), 0.5, np.float32), np.zeros(10, np.int64)) == 1
