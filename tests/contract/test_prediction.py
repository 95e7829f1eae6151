from typing import Any

import numpy as np

from serving.contract.prediction import Label, top_k, without_calibration

NAMES = ("ant", "bee", "cat", "dog")


def test_ids_stand_beside_the_names() -> None:
    prediction = top_k(np.array([0.1, 0.5, 0.15, 0.25], np.float32), NAMES, 2, ("n1", "n2", "n3", "n4"))
    assert prediction.top == (Label("bee", 1, 0.5, "n2"), Label("dog", 3, 0.25, "n4"))
    assert prediction.id == "n2"


def test_the_likeliest_classes_come_first() -> None:
    prediction = top_k(np.array([0.1, 0.5, 0.15, 0.25], np.float32), NAMES, 2)
    assert prediction.top == (Label("bee", 1, 0.5), Label("dog", 3, 0.25))
    assert (prediction.label, prediction.score) == ("bee", 0.5)


def test_among_equals_the_lower_index_comes_first() -> None:
    prediction = top_k(np.full(4, 0.25, np.float32), NAMES, 4)
    assert [label.index for label in prediction.top] == [0, 1, 2, 3]


def test_more_than_there_are_means_all() -> None:
    assert len(top_k(np.full(4, 0.25, np.float32), NAMES, 100).top) == 4


def test_the_temperature_can_be_undone() -> None:
    logits = np.array([2.0, 1.0, -3.0])

    def softmax(values: Any) -> Any:
        return np.exp(values) / np.exp(values).sum()

    calibrated = softmax(logits / 2.5).astype(np.float32)
    np.testing.assert_allclose(without_calibration(calibrated, 2.5), softmax(logits), rtol=1e-5)


def test_a_probability_of_zero_stays_zero() -> None:
    assert without_calibration(np.array([1, 0], np.float32), 0.5).tolist() == [1, 0]
