from typing import Any

import ml_dtypes
import numpy as np
import pytest

from serving.contract.prediction import Label, faults, top_k, without_calibration

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


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ([0.25, 0.25, 0.5], ""),
        ([1.0, 0.0, 0.0], ""),
        ([np.nan, 0.5, 0.5], "it answers numbers that are not finite"),
        ([np.inf, 0.0, 0.0], "it answers numbers that are not finite"),
        ([-0.2, 0.6, 0.6], "it answers numbers from -0.2 to 0.6 where its card promises probabilities"),
        ([3.0, -4.0, 2.0], "it answers numbers from -4 to 3 where its card promises probabilities"),
        ([0.0, 0.0, 0.0], "its probabilities sum to 0"),
        ([0.9, 0.9, 0.1], "its probabilities sum to 1.9"),
    ],
)
def test_a_row_that_cannot_be_probabilities_says_why(row: list[float], fault: str) -> None:
    fine = [0.1, 0.2, 0.7]
    assert faults(np.array([fine, row, fine], np.float32), sum_to_one=True) == ["", fault, ""]


def test_independent_labels_may_sum_to_anything() -> None:
    rows = np.array([[0.9, 0.9, 0.1], [0.0, 0.0, 0.0], [1.2, 0.0, 0.0]], np.float32)
    assert [bool(fault) for fault in faults(rows, sum_to_one=False)] == [False, False, True]
    assert faults(rows[:0], sum_to_one=True) == []


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("classes", [2, 1000, 10_000])
def test_right_probabilities_pass_in_every_precision(dtype: Any, classes: int) -> None:
    random = np.random.default_rng(0)
    for spread in (0.01, 1.0, 10.0):
        powers = np.exp(random.standard_normal((100, classes)) * spread)
        rows = (powers / powers.sum(axis=1, keepdims=True)).astype(dtype).astype(np.float32)
        assert not any(faults(rows, sum_to_one=True))
