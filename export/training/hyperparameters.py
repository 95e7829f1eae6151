"""Try a few learning rates and batch sizes before the real training."""

import tempfile
from dataclasses import replace
from typing import Any

import numpy as np

from export.data.datasets import DataSet
from export.progress import say
from export.training.fit import Build, Plan, fit

RATES = (1e-4, 1e-2)  # searched on a logarithmic scale
BATCH_SIZES = [32, 64, 128]
EPOCH_SHARE = 0.3  # of the plan's epochs, for each trial
MOST_IMAGES = 10_000  # in the training split of a trial


def search_hyperparameters(data: DataSet, build: Build, plan: Plan) -> Plan:
    """Run `plan.tune` short trainings and return the plan with the best learning rate and batch size.

    KerasTuner draws the candidates at random; the plan's seed decides which.
    """
    import keras_tuner

    trial_plan = replace(plan, epochs=max(1, round(plan.epochs * EPOCH_SHARE)), backups=None, folds=0, tune=0)
    random = np.random.default_rng(plan.seed)
    train = data.train.subset(random.permutation(len(data.train))[:MOST_IMAGES].tolist())

    class Search(keras_tuner.RandomSearch):  # type: ignore[misc]
        """A random search whose trial is one short training."""

        def run_trial(self, trial: Any, *_: Any, **__: Any) -> float:
            choices = trial.hyperparameters
            candidate = replace(
                trial_plan,
                learning_rate=choices.Float("learning_rate", *RATES, sampling="log"),
                batch_size=choices.Choice("batch_size", BATCH_SIZES),
            )
            fitted = fit(train, data.validation, build, candidate, len(data.labels))
            return min(fitted.history["val_loss"])

    with tempfile.TemporaryDirectory() as folder:
        search = Search(
            objective="val_loss",
            max_trials=plan.tune,
            seed=plan.seed,
            directory=folder,
            project_name="t",
            overwrite=True,
        )
        search.search(verbose=0)
        best = search.get_best_hyperparameters()[0].values
    say(f"best of {plan.tune} trials: learning rate {best['learning_rate']:.2g}, batch size {best['batch_size']}")
    return replace(plan, learning_rate=best["learning_rate"], batch_size=best["batch_size"])
