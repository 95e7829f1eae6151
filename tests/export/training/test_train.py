"""Cross-validation, and training as a family does it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from export.data.augmentation import AUGMENTATIONS, layers_of
from export.data.datasets import DataSet
from export.training.fit import Build, Plan
from export.training.train import cross_validate, train
from serving.contract.errors import InvalidData

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


def test_folds_are_reported_and_everything_is_trained_on(bars: DataSet, build_tiny: Build) -> None:
    metrics, epochs = cross_validate(bars, build_tiny, replace(PLAN, folds=2))
    assert set(metrics) == {"fold_accuracy_mean", "fold_accuracy_deviation"}
    assert 1 <= epochs <= 3
    with pytest.raises(InvalidData, match="--folds 70"):
        cross_validate(bars, build_tiny, replace(PLAN, folds=70))


def test_plateau_schedule_and_every_augmentation_train(bars: DataSet, build_tiny: Build) -> None:
    augment = tuple((name, strength) for name, (strength, _) in AUGMENTATIONS.items())
    trained = train(lambda: bars, build_tiny, replace(PLAN, epochs=1, schedule="plateau", augment=augment))
    assert trained.epochs == 1
    assert len(layers_of(dict(augment))) == len(AUGMENTATIONS)
