"""Train a model, judge it, and hand it over: the story of a family that trains."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from export.data.datasets import DataSet, Split
from export.made import Judged, KerasCall, Made, servable_of_keras
from export.progress import say
from export.training.calibration import fit_temperature, with_temperature
from export.training.evaluation import metrics_of, predict
from export.training.fit import Build, Fitted, Plan, fit
from export.training.hyperparameters import tuned
from serving.contract.errors import InvalidData

GOLDEN_EXAMPLES = 8


def trained(load: Callable[[], DataSet], build: Build, plan: Plan) -> Made:
    """Load the data, train, judge. The same seed on the same machine gives the same weights."""
    data = load()
    started = time.monotonic()
    if plan.tune:
        plan = tuned(data, build, plan)
    metrics: dict[str, float] = {}
    train, validation, epochs = data.train, data.validation, plan.epochs
    if plan.folds:
        metrics, epochs = cross_validated(data, build, plan)
        train = data.train.joined(data.validation)
    kind = replace(plan, epochs=epochs, patience=epochs) if plan.folds else plan
    fitted = fit(train, validation, build, kind, len(data.labels), keep_last=bool(plan.folds), mark=data.source.sha256)
    return judged(fitted, data, metrics, plan.seed, time.monotonic() - started)


def cross_validated(data: DataSet, build: Build, plan: Plan) -> tuple[dict[str, float], int]:
    """Train on all folds but one, in turn. Returns mean and deviation of the accuracy, and how many epochs were best.

    The folds are stratified and follow the seed; the test split is in none of them.
    """
    from sklearn.model_selection import StratifiedKFold

    everything = data.train.joined(data.validation)
    smallest = int(np.bincount(everything.labels).min())
    if smallest < plan.folds:
        raise InvalidData(f"--folds {plan.folds}: a class has {smallest} pictures; each fold needs one of every class")
    folds = StratifiedKFold(plan.folds, shuffle=True, random_state=plan.seed)
    accuracies, epochs = [], []
    for number, (kept, held) in enumerate(folds.split(np.zeros(len(everything)), everything.labels), 1):
        say(f"fold {number} of {plan.folds}")
        fold = replace(plan, backups=None)
        fitted = fit(everything.subset(kept.tolist()), everything.subset(held.tolist()), build, fold, len(data.labels))
        accuracies.append(fitted.history["val_accuracy"][fitted.best_epoch - 1])
        epochs.append(fitted.best_epoch)
    mean, deviation = float(np.mean(accuracies)), float(np.std(accuracies, ddof=1))
    say(f"{plan.folds} folds: accuracy {mean:.2%}, deviation {deviation:.2%}")
    return {"fold_accuracy_mean": mean, "fold_accuracy_deviation": deviation}, max(1, round(float(np.mean(epochs))))


def judged(
    fitted: Fitted,
    data: DataSet,
    metrics: dict[str, float],
    seed: int,
    seconds: float,
    *,
    temperature: float | None = None,
) -> Made:
    """Calibrate the model on the validation split, judge it on the test split.

    temperature: where it is known already, because the model has been trained on the validation split.
    """
    if temperature is None:
        plain = predict(servable_of_keras(KerasCall(fitted.core)), data.validation)
        temperature = fit_temperature(plain, data.validation.labels)
    servable = servable_of_keras(KerasCall(with_temperature(fitted.core, temperature)))
    test = predict(servable, data.test)
    numbers = {**metrics_of(test, data.test.labels), **metrics}
    say(
        f"test accuracy {numbers['test_accuracy']:.2%} on {len(data.test):,} pictures "
        f"(best of {fitted.epochs} epochs: {fitted.best_epoch}, {seconds:.0f} s)"
    )
    return Made(
        servable=servable,
        preprocessing=data.preprocessing,
        labels=data.labels,
        source=data.source,
        examples=tuple(data.test.pictures(spread(data.test))),
        epochs=fitted.epochs,
        seed=seed,
        seconds=seconds,
        temperature=temperature,
        metrics=numbers,
        history=fitted.history,
        train=data.train,
        validation=Judged(data.validation, predict(servable, data.validation)),
        test=Judged(data.test, test),
    )


def spread(split: Split) -> list[int]:
    """Indices of a few pictures: the first of each class in turn, then the second, until there are enough."""
    order = np.argsort(split.labels, kind="stable")
    ranks = np.concatenate([np.arange(n) for n in np.bincount(split.labels)])
    chosen = order[np.argsort(ranks, kind="stable")][:GOLDEN_EXAMPLES]
    return [int(index) for index in chosen]
