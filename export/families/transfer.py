"""A pretrained network with a new head: a good classifier of few pictures, in minutes.

The backbone is frozen, so its features are computed once, for each picture as it is and for a few variations of it; the
head is trained on features: first without the validation pictures, to find how long, then with them. Then, if asked
for, the last layers of the backbone are tuned with the first of these heads at a lower rate.
"""

import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from export.data.augmentation import layers_of
from export.data.datasets import DataSet, Places
from export.data.features import features_of
from export.made import Made
from export.networks.pretrained import BACKBONES, feature_extractor, find_weights, normalised
from export.options import Session, Target, Training, training_options
from export.pipeline import Recipe, export
from export.progress import say
from export.training.calibration import fit_temperature
from export.training.fit import LOSS, Fitted, Model, Plan, fit, run
from export.training.folder_commands import PHOTO_AUGMENTATION, folder_data, folder_options
from export.training.hyperparameters import tuned
from export.training.trained import cross_validated, judged

HEAD_L2 = 3e-3  # a thousand features and a few hundred pictures: the weights need holding
FINE_TUNING_RATE = 0.01  # of the head's learning rate
VARIATIONS = ((500, 4), (5_000, 2), (50_000, 1))  # up to so many pictures, so many variations of each


@dataclass(frozen=True, slots=True)
class Trained:
    """A head. fitted: what was trained on all pictures, with the history of `held_out`, which lacks the validation's.

    temperature: of `held_out`, on the validation pictures. metrics: of the folds, where there were any.
    """

    fitted: Fitted
    held_out: Model
    temperature: float
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Head:
    """What is put on the backbone. pooling: `avg` or `max`; units: a hidden layer, 0 for none."""

    pooling: str
    units: int
    dropout: float


class HeadType(click.ParamType[Head]):
    """`avg`, `max:256`, `avg:128:0.5`: pooling, hidden units, dropout."""

    name = "POOLING[:UNITS[:DROPOUT]]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Head:
        if isinstance(value, Head):
            return value
        pooling, units, dropout, *rest = [*str(value).split(":"), "0", "0.3"][: max(3, str(value).count(":") + 1)]
        try:
            head = Head(pooling, int(units), float(dropout))
        except ValueError:
            self.fail(f"{value!r} is not {self.name}", param, ctx)
        if rest or head.pooling not in ("avg", "max") or head.units < 0 or not 0 <= head.dropout < 1:
            self.fail(f"{value!r} is not {self.name}: avg, max:256, avg:128:0.5", param, ctx)
        return head


@click.command("transfer")
@click.option("--backbone", type=click.Choice(tuple(BACKBONES)), default="mobilenetv2", show_default=True)
@click.option("--weights", default="imagenet", show_default=True, help="imagenet, none (random), or a FILE.")
@click.option("--head", type=HeadType(), default="avg", show_default=True, help="avg, max:256, avg:128:0.5 and so on.")
@click.option("--fine-tune", type=click.IntRange(0), default=0, help="Then train the last N layers of the backbone.")
@click.option("--image-size", type=click.IntRange(32), help="Pixels of a side; by default the backbone's.")
@folder_options
@training_options
@click.pass_obj
def command(
    session: Session,
    /,
    *,
    training: Training,
    target: Target,
    backbone: str,
    weights: str,
    head: Head,
    fine_tune: int,
    image_size: int | None,
    **shares: Any,
) -> None:
    """A new head on a pretrained backbone, from a folder of your pictures.

    \b
    sightline export transfer --data ~/ants_bees --name ants_bees
    sightline export transfer --data photos.csv --backbone resnet50 --head avg:256:0.5 --fine-tune 20
    """
    plan = training.plan(target, PHOTO_AUGMENTATION, epochs=100, batch_size=32, learning_rate=1e-3, patience=30)
    size = image_size or BACKBONES[backbone].size
    make = partial(
        transferred,
        training=training,
        shares=shares,
        backbone=backbone,
        size=size,
        weights=weights,
        places=session.places(),
        head=head,
        fine_tune=fine_tune,
        plan=plan,
    )
    export(Recipe("transfer", make), target)


def transferred(
    *,
    training: Training,
    shares: dict[str, Any],
    backbone: str,
    size: int,
    weights: str,
    places: Places,
    head: Head,
    fine_tune: int,
    plan: Plan,
) -> Made:
    """Load, compute features, train the head, tune the backbone's end, judge."""
    import keras

    found = find_weights(backbone, weights, places)
    data = folder_data(training, BACKBONES[backbone].preprocessing_at(size), **shares)()
    started = time.monotonic()
    keras.utils.set_random_seed(plan.seed)
    extractor = feature_extractor(backbone, size, head.pooling, found)
    extractor.trainable = False
    trained = train_head(data, extractor, backbone, head, plan)
    if fine_tune:
        held_out = replace(trained.fitted, core=_joined(extractor, trained.held_out, backbone, size))
        whole = fine_tuned(data, held_out.core, extractor, fine_tune, plan=plan, head=held_out)
        if whole is not held_out:
            return judged(whole, data, trained.metrics, plan.seed, time.monotonic() - started)
    fitted = replace(trained.fitted, core=_joined(extractor, trained.fitted.core, backbone, size))
    seconds = time.monotonic() - started
    return judged(fitted, data, trained.metrics, plan.seed, seconds, temperature=trained.temperature)


def train_head(data: DataSet, extractor: Model, backbone: str, head: Head, plan: Plan) -> Trained:
    """Fit the head to features; when its length is known, fit it again to the validation pictures as well.

    A few hundred pictures are all that most people have: the tenth that chose the length is worth training on. The
    temperature comes from the head that has not seen them.
    """
    variations = next((n for most, n in VARIATIONS if len(data.train) <= most), 0) if plan.augment else 0
    build = partial(_head, head=head)
    kind = replace(plan, augment=(), backups=None)
    with tempfile.TemporaryDirectory() as folder:
        total = len(data.train) + len(data.validation)
        say(f"computing features of {total:,} pictures and {variations} variations of each with {backbone}")
        file = Path(folder) / "features.npy"
        train, validation = features_of(
            data, extractor, backbone, file, variations=variations, strengths=plan.strengths
        )
        featured = replace(data, train=train, validation=validation)
        if plan.tune:
            kind = tuned(featured, build, kind)
        metrics = cross_validated(featured, build, kind)[0] if plan.folds else {}
        fitted = fit(train, validation, build, kind, len(data.labels))
        temperature = fit_temperature(
            np.asarray(fitted.core(validation.tensors(range(len(validation))))), validation.labels
        )
        say(f"{fitted.best_epoch} of {fitted.epochs} epochs are best: training so many on all {total:,} pictures")
        length = replace(kind, epochs=fitted.best_epoch)
        final = fit(train.joined(validation), validation, build, length, len(data.labels), keep_last=True)
    return Trained(replace(fitted, core=final.core), fitted.core, temperature, metrics)


def fine_tuned(data: DataSet, core: Model, extractor: Model, layers: int, *, plan: Plan, head: Fitted) -> Fitted:
    """Train the last layers of the backbone and the head at a lower rate. Batch normalisation keeps its statistics.

    The new weights are kept only where the validation loss is lower than the head's alone.
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
    say(f"tuning the last {layers} layers of the backbone at a learning rate of {slow.learning_rate:.1e}")
    history = run(trainer, core, data.train, data.validation, slow, keep_last=False, mark=data.source.sha256)
    if min(history["val_loss"]) > min(head.history["val_loss"]):
        say("tuning did not help: the backbone stays as it was")
        core.set_weights(before)
        return head
    joined = {name: head.history.get(name, []) + values for name, values in history.items()}
    losses = history["val_loss"]
    return Fitted(core, head.epochs + len(losses), head.epochs + int(np.argmin(losses)) + 1, joined)


def _head(shape: tuple[int, ...], classes: int, head: Head) -> Model:
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


def _joined(extractor: Model, head: Model, backbone: str, size: int) -> Model:
    import keras

    image = keras.Input((size, size, 3), name="picture")
    return keras.Model(image, head(extractor(normalised(image, BACKBONES[backbone].mode))))
