"""A pretrained network with a new head: a good classifier from few images, in minutes.

The backbone is frozen, so its features are computed once, for each image and a few variations of it. The head is
trained on these features: first without the validation images, to find the number of epochs, then with them. With
--fine-tune, the last layers of the backbone are then trained together with the first of these heads, at a lower rate.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from export.data.augmentation import PHOTO_AUGMENTATION, layers_of
from export.data.datasets import DataSet, Places
from export.networks.keras_graph import KerasModel
from export.networks.pretrained import BACKBONES, feature_extractor, find_weights, normalised, notice_of
from export.options import Environment, FolderOptions, Target, TrainingOptions, folder_options, training_options
from export.pipeline import Recipe, export
from export.progress import say
from export.trained_model import TrainedModel
from export.training.calibration import fit_temperature
from export.training.features import features_of
from export.training.fit import LOSS, Fitted, Plan, fit, run
from export.training.hyperparameters import search_hyperparameters
from export.training.train import calibrate_and_evaluate, cross_validate

HEAD_L2 = 3e-3  # strong: there may be a thousand features and only a few hundred images
DROPOUT = 0.3
FINE_TUNING_RATE = 0.01  # of the head's learning rate
VARIATIONS = ((500, 4), (5_000, 2), (50_000, 1))  # (up to so many images, variations of each)


@dataclass(frozen=True, slots=True)
class TrainedHead:
    """fitted: the head trained on all images, with the history of `held_out`, which was trained without validation.

    temperature: of `held_out`, on the validation images. metrics: of the folds, where there were any.
    """

    fitted: Fitted
    held_out: KerasModel
    temperature: float
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Head:
    """The layers on top of the backbone. pooling: `avg` or `max`. units: of a hidden layer, 0 for none."""

    pooling: str
    units: int
    dropout: float


class HeadType(click.ParamType[Head]):
    """`avg`, `max:256`, `avg:128:0.5`: pooling, hidden units, dropout."""

    name = "POOLING[:UNITS[:DROPOUT]]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Head:
        if isinstance(value, Head):
            return value
        parts = str(value).split(":")
        try:
            units = int(parts[1]) if len(parts) > 1 else 0
            head = Head(parts[0], units, float(parts[2]) if len(parts) > 2 else DROPOUT)
        except ValueError:
            self.fail(f"{value!r} is not {self.name}.", param, ctx)
        if len(parts) > 3 or head.pooling not in ("avg", "max") or head.units < 0 or not 0 <= head.dropout < 1:
            self.fail(f"{value!r} is not {self.name}. Examples: avg, max:256, avg:128:0.5.", param, ctx)
        return head


@click.command("transfer")
@click.option("--backbone", type=click.Choice(tuple(BACKBONES)), default="mobilenetv2", show_default=True)
@click.option("--weights", default="imagenet", show_default=True, help="imagenet, none (random), or a FILE.")
@click.option(
    "--head", type=HeadType(), default="avg", show_default=True, help="Pooling, units of a hidden layer, dropout."
)
@click.option("--fine-tune", type=click.IntRange(0), default=0, help="Also train the last N layers of the backbone.")
@click.option("--image-size", type=click.IntRange(32), help="Pixels of a side; by default the backbone's.")
@folder_options
@training_options
@click.pass_obj
def command(
    environment: Environment,
    /,
    *,
    training: TrainingOptions,
    target: Target,
    folder: FolderOptions,
    backbone: str,
    weights: str,
    head: Head,
    fine_tune: int,
    image_size: int | None,
) -> None:
    """A new head on a pretrained backbone.

    Trains on your own images; a few hundred are enough.

    \b
    sightline export transfer --data ~/ants_bees --name ants_bees
    sightline export transfer --data photos.csv --backbone resnet50 --head avg:256:0.5 --fine-tune 20
    """
    plan = training.plan(target, PHOTO_AUGMENTATION, epochs=100, batch_size=32, learning_rate=1e-3, patience=30)
    size = image_size or BACKBONES[backbone].size
    make = partial(
        transfer,
        load=partial(folder.load, training, BACKBONES[backbone].preprocessing_at(size)),
        backbone=backbone,
        size=size,
        weights=weights,
        places=environment.places(),
        head=head,
        fine_tune=fine_tune,
        plan=plan,
    )
    export(Recipe("transfer", make), target)


def transfer(
    *,
    load: Callable[[], DataSet],
    backbone: str,
    size: int,
    weights: str,
    places: Places,
    head: Head,
    fine_tune: int,
    plan: Plan,
) -> TrainedModel:
    """Load the data, compute features, train the head, fine-tune the backbone, evaluate."""
    import keras

    found = find_weights(backbone, weights, places)
    notice = notice_of(backbone, found)
    data = load()
    started = time.monotonic()
    keras.utils.set_random_seed(plan.seed)
    extractor = feature_extractor(backbone, size, head.pooling, found)
    extractor.trainable = False
    new = train_head(data, extractor, backbone, head, plan)
    if fine_tune:
        held_out = replace(new.fitted, core=_joined(extractor, new.held_out, backbone, size))
        whole = fine_tune_backbone(data, held_out.core, extractor, fine_tune, plan=plan, head=held_out)
        if whole is not held_out:
            trained = calibrate_and_evaluate(whole, data, new.metrics, plan.seed, time.monotonic() - started)
            return replace(trained, notice=notice)
    fitted = replace(new.fitted, core=_joined(extractor, new.fitted.core, backbone, size))
    seconds = time.monotonic() - started
    trained = calibrate_and_evaluate(fitted, data, new.metrics, plan.seed, seconds, temperature=new.temperature)
    return replace(trained, notice=notice)


def train_head(data: DataSet, extractor: KerasModel, backbone: str, head: Head, plan: Plan) -> TrainedHead:
    """Fit the head to features; once the number of epochs is known, fit it again with the validation images.

    Most people have a few hundred images: those that chose the number of epochs are worth training on. The temperature
    comes from the head that was trained without them.
    """
    variations = next((n for most, n in VARIATIONS if len(data.train) <= most), 0) if plan.augment else 0
    build = partial(_head, head=head)
    head_plan = replace(plan, augment=(), backups=None)
    with tempfile.TemporaryDirectory() as folder:
        total = len(data.train) + len(data.validation)
        say(f"computing the features of {total:,} images and {variations} variations of each with {backbone}")
        file = Path(folder) / "features.npy"
        train, validation = features_of(
            data, extractor, backbone, file, variations=variations, strengths=plan.strengths
        )
        featured = replace(data, train=train, validation=validation)
        if plan.tune:
            head_plan = search_hyperparameters(featured, build, head_plan)
        metrics = cross_validate(featured, build, head_plan)[0] if plan.folds else {}
        fitted = fit(train, validation, build, head_plan, len(data.labels))
        temperature = fit_temperature(
            np.asarray(fitted.core(validation.tensors(range(len(validation))))), validation.labels
        )
        say(f"epoch {fitted.best_epoch} of {fitted.epochs} was best: training as many on all {total:,} images")
        length = replace(head_plan, epochs=fitted.best_epoch)
        final = fit(train.joined(validation), validation, build, length, len(data.labels), keep_last=True)
    return TrainedHead(replace(fitted, core=final.core), fitted.core, temperature, metrics)


def fine_tune_backbone(
    data: DataSet, core: KerasModel, extractor: KerasModel, layers: int, *, plan: Plan, head: Fitted
) -> Fitted:
    """Train the last layers of the backbone and the head at a lower rate. Batch normalisation keeps its statistics.

    The new weights are kept only if the validation loss falls below that of the head alone.
    """
    import keras

    extractor.trainable = True
    for index, layer in enumerate(extractor.layers):
        is_tuned = index >= len(extractor.layers) - layers
        layer.trainable = is_tuned and not isinstance(layer, keras.layers.BatchNormalization)
    slow = replace(plan, learning_rate=plan.learning_rate * FINE_TUNING_RATE, patience=max(2, plan.patience // 2))
    shape = data.train.tensors([0]).shape[1:]
    image = keras.Input(shape)
    varied = image
    for layer in layers_of(plan.strengths):
        varied = layer(varied)
    trainer = keras.Model(image, core(varied))
    trainer.compile(keras.optimizers.Adam(slow.learning_rate), LOSS, metrics=["accuracy"])
    before = core.get_weights()
    say(f"fine-tuning the last {layers} layers of the backbone at a learning rate of {slow.learning_rate:.1e}")
    history = run(trainer, core, data.train, data.validation, slow, keep_last=False, mark=data.source.sha256)
    if min(history["val_loss"]) > min(head.history["val_loss"]):
        say("fine-tuning did not lower the validation loss: the backbone is unchanged")
        core.set_weights(before)
        return head
    joined = {name: head.history.get(name, []) + values for name, values in history.items()}
    losses = history["val_loss"]
    return Fitted(core, head.epochs + len(losses), head.epochs + int(np.argmin(losses)) + 1, joined)


def _head(shape: tuple[int, ...], classes: int, head: Head) -> KerasModel:
    import keras
    from keras import layers, regularizers

    stack = [layers.Dropout(head.dropout)]
    if head.units:
        stack += [layers.Dense(head.units, activation="relu"), layers.Dropout(head.dropout)]
    return keras.Sequential(
        [
            keras.Input(shape),
            *stack,
            layers.Dense(classes, activation="softmax", kernel_regularizer=regularizers.L2(HEAD_L2)),
        ]
    )


def _joined(extractor: KerasModel, head: KerasModel, backbone: str, size: int) -> KerasModel:
    import keras

    image = keras.Input((size, size, 3), name="picture")
    return keras.Model(image, head(extractor(normalised(image, BACKBONES[backbone].mode))))
