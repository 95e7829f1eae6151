"""The search for a learning rate and a batch size."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from export.data.datasets import DataSet
from export.training.fit import Build, Plan

pytest.importorskip("tensorflow")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),  # Keras
    pytest.mark.filterwarnings("ignore:currentThread:DeprecationWarning"),  # KerasTuner
    pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner"),
]

PLAN = Plan(epochs=3, batch_size=16, learning_rate=1e-2, patience=5, seed=0)


@pytest.fixture
def bars(make_bars: Callable[[], DataSet]) -> DataSet:
    return make_bars()


def test_tuning_chooses_within_its_bounds(bars: DataSet, build_tiny: Build) -> None:
    from export.training.hyperparameters import BATCH_SIZES, RATES, search_hyperparameters

    plan = search_hyperparameters(bars, build_tiny, replace(PLAN, tune=2))
    assert RATES[0] <= plan.learning_rate <= RATES[1]
    assert plan.batch_size in BATCH_SIZES
