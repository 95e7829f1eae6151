"""Class weights, oversampling and SMOTE."""

import numpy as np
import pytest

from export.data.balance import balance_classes, class_weights, oversampled
from export.data.datasets import Arrays, ArraySplit


def uneven() -> ArraySplit:
    labels = np.repeat([0, 1], [12, 4]).astype(np.int64)
    images = np.random.default_rng(0).integers(0, 255, (16, 6, 6)).astype(np.uint8)
    return ArraySplit(Arrays(images, labels), images[..., None])


def test_class_weights_make_classes_count_alike() -> None:
    assert class_weights(uneven().labels) == {0: pytest.approx(16 / 24), 1: 2.0}


@pytest.mark.parametrize("balance", ["oversample", pytest.param("smote", marks=pytest.mark.integration)])
def test_balancing_gives_every_class_as_many_images(balance: str) -> None:
    even = balance_classes(uneven(), balance, seed=0)
    assert np.bincount(even.labels).tolist() == [12, 12]
    assert even.tensors([0]).dtype == np.uint8
    assert len(even.pictures([23])) == 1


def test_oversampling_keeps_every_image() -> None:
    assert set(oversampled(uneven().labels, 0)) == set(range(16))
