"""Training: what the options promise, on pictures of bars."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from export.data.augmentation import AUGMENTATIONS, chosen, layers_of
from export.data.balance import balanced, class_weights, oversampled
from export.data.datasets import Arrays, ArraySplit, DataSet
from export.training.calibration import calibration_error, fit_temperature, reliability
from export.training.evaluation import metrics_of
from export.training.fit import Build, Plan, fit
from export.training.trained import cross_validated, trained
from serving.contract.errors import InvalidData, UsageError

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),  # Keras
    pytest.mark.filterwarnings("ignore:currentThread:DeprecationWarning"),  # KerasTuner
    pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner"),
]

PLAN = Plan(epochs=3, batch_size=16, learning_rate=1e-2, patience=5, seed=0)


@pytest.fixture
def bars(make_bars: Callable[[], DataSet]) -> DataSet:
    return make_bars()


def test_a_killed_training_goes_on_from_its_last_epoch(bars: DataSet, build_tiny: Build, tmp_path: Path) -> None:
    plan = replace(PLAN, epochs=4, backups=tmp_path)
    started: list[int] = []

    class Killed(BaseException):
        """As SIGTERM or Ctrl-C would end it."""

    import keras

    def die_in_the_third_epoch(epoch: int, _logs: Any = None) -> None:
        started.append(epoch)
        if len(started) == 3:
            raise Killed

    watcher = keras.callbacks.LambdaCallback(on_epoch_begin=die_in_the_third_epoch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.training.fit.training_progress", lambda *_: watcher)
        with pytest.raises(Killed):
            fit(bars.train, bars.validation, build_tiny, plan, 2, mark="bars")
        fitted = fit(bars.train, bars.validation, build_tiny, plan, 2, mark="bars")
    assert started == [0, 1, 2, 2, 3]
    assert fitted.core is not None
    assert list(tmp_path.iterdir()) == []


def test_another_plan_does_not_take_up_a_training(bars: DataSet, build_tiny: Build, tmp_path: Path) -> None:
    (tmp_path / ".resume-of-another").mkdir()
    fit(bars.train, bars.validation, build_tiny, replace(PLAN, epochs=1, backups=tmp_path), 2, mark="bars")
    assert [path.name for path in tmp_path.iterdir()] == [".resume-of-another"]


def test_folds_are_reported_and_everything_is_trained_on(bars: DataSet, build_tiny: Build) -> None:
    metrics, epochs = cross_validated(bars, build_tiny, replace(PLAN, folds=2))
    assert set(metrics) == {"fold_accuracy_mean", "fold_accuracy_deviation"}
    assert 1 <= epochs <= 3
    with pytest.raises(InvalidData, match="--folds 70"):
        cross_validated(bars, build_tiny, replace(PLAN, folds=70))


def test_tuning_chooses_within_its_bounds(bars: DataSet, build_tiny: Build) -> None:
    from export.training.hyperparameters import BATCH_SIZES, RATES, tuned

    plan = tuned(bars, build_tiny, replace(PLAN, tune=2))
    assert RATES[0] <= plan.learning_rate <= RATES[1]
    assert plan.batch_size in BATCH_SIZES


def test_plateau_schedule_and_every_augmentation_train(bars: DataSet, build_tiny: Build) -> None:
    augment = tuple((name, strength) for name, (strength, _) in AUGMENTATIONS.items())
    made = trained(lambda: bars, build_tiny, replace(PLAN, epochs=1, schedule="plateau", augment=augment))
    assert made.epochs == 1
    assert len(layers_of(dict(augment))) == len(AUGMENTATIONS)


def test_mixed_precision_serves_float32(bars: DataSet, build_tiny: Build) -> None:
    fitted = fit(bars.train, bars.validation, build_tiny, replace(PLAN, epochs=1, mixed_precision=True), 2)
    assert {weight.dtype for weight in fitted.core.weights} == {"float32"}
    assert all(layer.compute_dtype == "float32" for layer in fitted.core.layers)


def test_augment_takes_names_of_the_table_only() -> None:
    assert chosen({"flip": 1.0}, None) == {"flip": 1.0}
    assert chosen({"flip": 1.0, "zoom": 0.3}, "zoom") == {"zoom": 0.3}
    assert chosen({"flip": 1.0}, "none") == {}
    with pytest.raises(UsageError, match="sharpen"):
        chosen({}, "flip,sharpen")


def uneven() -> ArraySplit:
    labels = np.repeat([0, 1], [12, 4]).astype(np.int64)
    images = np.random.default_rng(0).integers(0, 255, (16, 6, 6)).astype(np.uint8)
    return ArraySplit(Arrays(images, labels), images[..., None])


def test_a_step_of_training_is_traced_once(bars: DataSet, build_tiny: Build) -> None:
    import keras

    traced: list[bool] = []

    class Watching(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any, training: bool | None = None) -> Any:
            if training:
                traced.append(training)
            return x

    def build(shape: tuple[int, int, int], classes: int) -> Any:
        return keras.Sequential([build_tiny(shape, classes), Watching()])

    fit(bars.train, bars.validation, build, replace(PLAN, epochs=2), 2)
    assert len(traced) == 1


def test_class_weights_make_classes_count_alike() -> None:
    assert class_weights(uneven().labels) == {0: pytest.approx(16 / 24), 1: 2.0}


@pytest.mark.parametrize("balance", ["oversample", "smote"])
def test_balancing_gives_every_class_as_many_pictures(balance: str) -> None:
    even = balanced(uneven(), balance, seed=0)
    assert np.bincount(even.labels).tolist() == [12, 12]
    assert even.tensors([0]).dtype == np.uint8
    assert len(even.pictures([23])) == 1


def test_oversampling_keeps_every_picture() -> None:
    assert set(oversampled(uneven().labels, 0)) == set(range(16))


def test_temperature_of_overconfident_scores_is_found() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (4000, 3))
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([random.choice(3, p=row) for row in honest])
    boastful = honest**2.5 / (honest**2.5).sum(axis=1, keepdims=True)
    assert fit_temperature(boastful.astype(np.float32), labels) == pytest.approx(2.5, rel=0.1)
    assert calibration_error(honest, labels) < 0.03 < calibration_error(boastful, labels)
    assert sum(n for _, _, n in reliability(honest, labels)) == 4000


def test_temperature_of_few_pictures_is_left_at_one() -> None:
    assert fit_temperature(np.full((10, 2), 0.5, np.float32), np.zeros(10, np.int64)) == 1


def test_metrics_are_those_of_the_definitions() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.7, 0.3]], np.float32)
    metrics = metrics_of(probabilities, np.array([0, 0, 1, 1]))
    assert metrics["test_accuracy"] == 0.75
    assert metrics["test_balanced_accuracy"] == 0.75
    assert metrics["test_matthews"] == pytest.approx(2 / np.sqrt(12))
    assert metrics["test_roc_auc"] == 1.0
    assert "test_top5_accuracy" not in metrics
