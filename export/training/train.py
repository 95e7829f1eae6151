"""Load the data, train, calibrate and evaluate: the whole training of a family, from data set to `TrainedModel`."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from export.data.datasets import DataSet, Split
from export.data.example_photos import GOLDEN_EXAMPLES
from export.progress import say, say_table
from export.trained_model import Evaluated, KerasCall, TrainedModel, servable_of_keras
from export.training.calibration import fit_temperature, with_temperature
from export.training.evaluation import metrics_of, predict
from export.training.fit import Build, Fitted, Plan, fit
from export.training.hyperparameters import search_hyperparameters
from serving.contract.errors import InvalidData


def train(load: Callable[[], DataSet], build: Build, plan: Plan) -> TrainedModel:
    """Train a network from scratch. The same seed on the same machine gives the same weights."""
    data = load()
    started = time.monotonic()
    if plan.tune:
        plan = search_hyperparameters(data, build, plan)
    metrics: dict[str, float] = {}
    train_split, validation, epochs = data.train, data.validation, plan.epochs
    if plan.folds:
        metrics, epochs = cross_validate(data, build, plan)
        train_split = data.train.joined(data.validation)
    final = replace(plan, epochs=epochs, patience=epochs) if plan.folds else plan
    fitted = fit(
        train_split, validation, build, final, len(data.labels), keep_last=bool(plan.folds), mark=data.source.sha256
    )
    return calibrate_and_evaluate(fitted, data, metrics, plan.seed, time.monotonic() - started)


def cross_validate(data: DataSet, build: Build, plan: Plan) -> tuple[dict[str, float], int]:
    """Train once per fold, without that fold. Returns mean and deviation of the accuracy, and the mean best epoch.

    The folds are stratified and follow from the seed; they never contain the test split.
    """
    from sklearn.model_selection import StratifiedKFold

    everything = data.train.joined(data.validation)
    smallest = int(np.bincount(everything.labels).min())
    if smallest < plan.folds:
        raise InvalidData(
            f"--folds {plan.folds}: a class has only {smallest} images, and each fold needs one of every class.",
            hint="Use fewer folds, or add images of that class.",
        )
    folds = StratifiedKFold(plan.folds, shuffle=True, random_state=plan.seed)
    accuracies, epochs = [], []
    for number, (kept, held) in enumerate(folds.split(np.zeros(len(everything)), everything.labels), 1):
        say(f"fold {number} of {plan.folds}")
        fold = replace(plan, backups=None)
        fitted = fit(everything.subset(kept.tolist()), everything.subset(held.tolist()), build, fold, len(data.labels))
        accuracies.append(fitted.history["val_accuracy"][fitted.best_epoch - 1])
        epochs.append(fitted.best_epoch)
    mean, deviation = float(np.mean(accuracies)), float(np.std(accuracies, ddof=1))
    say(f"{plan.folds} folds: mean accuracy {mean:.2%}, standard deviation {deviation:.2%}")
    return {"fold_accuracy_mean": mean, "fold_accuracy_deviation": deviation}, max(1, round(float(np.mean(epochs))))


def calibrate_and_evaluate(
    fitted: Fitted,
    data: DataSet,
    metrics: dict[str, float],
    seed: int,
    seconds: float,
    *,
    temperature: float | None = None,
) -> TrainedModel:
    """Calibrate the model on the validation split and evaluate it on the test split.

    temperature: given where the model was trained on the validation split as well; then that split cannot calibrate it.
    """
    if temperature is None:
        uncalibrated = predict(servable_of_keras(KerasCall(fitted.core)), data.validation)
        temperature = fit_temperature(uncalibrated, data.validation.labels)
    servable = servable_of_keras(KerasCall(with_temperature(fitted.core, temperature)))
    test = predict(servable, data.test)
    numbers = {**metrics_of(test, data.test.labels), **metrics}
    _say_result(fitted, data, numbers, seconds)
    return TrainedModel(
        servable=servable,
        preprocessing=data.preprocessing,
        labels=data.labels,
        source=data.source,
        examples=tuple(data.test.pictures(spread_over_classes(data.test))),
        epochs=fitted.epochs,
        seed=seed,
        seconds=seconds,
        temperature=temperature,
        metrics=numbers,
        history=fitted.history,
        train=data.train,
        validation=Evaluated(data.validation, predict(servable, data.validation)),
        test=Evaluated(data.test, test),
    )


def _say_result(fitted: Fitted, data: DataSet, metrics: dict[str, float], seconds: float) -> None:
    """Print loss and accuracy of the best epoch on each split. Those of training are of varied images."""
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    best = {name: fitted.history[name][fitted.best_epoch - 1] for name in names if name in fitted.history}
    best |= {"test_loss": metrics["test_loss"], "test_accuracy": metrics["test_accuracy"]}
    splits = (("training", data.train, ""), ("validation", data.validation, "val_"), ("test", data.test, "test_"))
    say_table(
        f"trained in {seconds:.0f} s; epoch {fitted.best_epoch} of {fitted.epochs} was the best",
        ("split", "images", "loss", "accuracy"),
        [
            (name, f"{len(split):,}", f"{best[f'{key}loss']:.4f}", f"{best[f'{key}accuracy']:.2%}")
            for name, split, key in splits
            if f"{key}accuracy" in best
        ],
    )


def spread_over_classes(split: Split) -> list[int]:
    """Choose a few images: the first of each class in turn, then the second of each, until there are enough."""
    order = np.argsort(split.labels, kind="stable")
    ranks = np.concatenate([np.arange(n) for n in np.bincount(split.labels)])
    chosen = order[np.argsort(ranks, kind="stable")][:GOLDEN_EXAMPLES]
    return [int(index) for index in chosen]
