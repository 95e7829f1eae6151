"""A pretrained network with a new head: a good classifier of few pictures, in minutes.

The backbone is frozen, so its features are computed once, for each picture as it is and for a few variations of it; the
head is trained on features. Then, if asked for, the last layers of the backbone are tuned with it at a lower rate.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from export.augmentation import layers_of
from export.backbones import BACKBONES, feature_extractor, find_weights, normalised
from export.balance import balanced
from export.datasets import DataSet, Labels, Places, Split, batches_of
from export.folder_training import PHOTO_AUGMENTATION, folder_data, folder_options
from export.folders import record_split
from export.made import Made
from export.options import Session, Target, Training, training_options
from export.pipeline import Recipe, export
from export.progress import say
from export.training import LOSS, Fitted, Model, Plan, judged, run
from serving.contract.errors import UsageError

FEATURE_BATCH = 16
HEAD_L2 = 3e-3  # a thousand features and a few hundred pictures: the weights need holding
FINE_TUNING_RATE = 0.01  # of the head's learning rate
VARIATIONS = ((500, 4), (5_000, 2), (50_000, 1))  # up to so many pictures, so many variations of each
SPLIT_FILE = "split.csv"


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
    if training.folds or training.tune:
        raise UsageError(
            "transfer knows no --folds and no --tune", hint="Try several --head and compare their reports."
        )
    plan = training.plan(
        target, PHOTO_AUGMENTATION, epochs=60, batch_size=32, learning_rate=1e-3, patience=12, schedule="plateau"
    )
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
        target=target,
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
    target: Target,
) -> Made:
    """Load, compute features, train the head, tune the backbone's end, judge."""
    import keras

    found = find_weights(backbone, weights, places)
    data = folder_data(training, BACKBONES[backbone].preprocessing_at(size), **shares)()
    started = time.monotonic()
    keras.utils.set_random_seed(plan.seed)
    if target.reports:
        record_split(data, target.reports / target.name / SPLIT_FILE)
    extractor = feature_extractor(backbone, size, head.pooling, found)
    extractor.trainable = False
    fitted_head = train_head(data, extractor, backbone, head, plan)
    core = _joined(extractor, fitted_head.core, backbone, size)
    fitted = replace(fitted_head, core=core)
    if fine_tune:
        fitted = fine_tuned(data, core, extractor, fine_tune, plan=plan, head=fitted)
    return judged(fitted, data, {}, plan.seed, time.monotonic() - started)


def train_head(data: DataSet, extractor: Model, backbone: str, head: Head, plan: Plan) -> Fitted:
    """Fit the head to features, which are computed once and kept in a file, not in memory."""
    copies = next((n for most, n in VARIATIONS if len(data.train) <= most), 0) if plan.augment else 0
    train = balanced(data.train, plan.balance, plan.seed)
    with tempfile.TemporaryDirectory() as folder:
        say(f"computing features of {len(train):,} pictures and {copies} variations of each with {backbone}")
        x, y = features(train, extractor, backbone, Path(folder) / "train.npy", copies=copies, plan=plan)
        held_x, held_y = features(
            data.validation, extractor, backbone, Path(folder) / "validation.npy", copies=0, plan=plan
        )
        core = _head(x.shape[1], head, len(data.labels))
        import keras

        core.compile(keras.optimizers.Adam(plan.learning_rate), LOSS, metrics=["accuracy"])
        kind = replace(plan, balance="class-weight" if plan.balance == "class-weight" else "none", backups=None)
        split, held = FeatureSplit(x, y), FeatureSplit(held_x, held_y)
        history = run(core, core, split, held, kind, keep_last=False, mark="")
    losses = history["val_loss"]
    return Fitted(core, len(losses), int(np.argmin(losses)) + 1, history)


def features(
    split: Split, extractor: Model, backbone: str, file: Path, *, copies: int, plan: Plan
) -> tuple[npt.NDArray[np.float32], Labels]:
    """The backbone's features of a split: (n * (1 + copies), f) in a file, and the labels.

    The first n rows are of the pictures as they are; then come `copies` variations of all of them.
    """
    import tensorflow as tf

    n, width = len(split), int(extractor.outputs[0].shape[-1])
    rows: npt.NDArray[np.float32] = np.lib.format.open_memmap(file, "w+", np.float32, (n * (1 + copies), width))
    layers = layers_of(plan.strengths)
    mode = BACKBONES[backbone].mode
    ask = tf.function(lambda image: extractor(normalised(image, mode), training=False))
    for indices, tensors in batches_of(split, FEATURE_BATCH):
        picture = tf.cast(tensors, tf.float32)
        for copy in range(1 + copies):
            varied = picture
            for layer in layers if copy else ():
                varied = layer(varied, training=True)
            rows[copy * n + indices[0] : copy * n + indices[-1] + 1] = ask(varied)
    return rows, np.tile(split.labels, 1 + copies)


class FeatureSplit:
    """Rows of features in the place of pictures, so that a head is trained like any model."""

    def __init__(self, rows: npt.NDArray[np.float32], labels: Labels) -> None:
        self.rows = rows
        self._labels = labels

    @property
    def labels(self) -> Labels:
        return self._labels

    def __len__(self) -> int:
        return len(self.rows)

    def tensors(self, indices: Sequence[int]) -> npt.NDArray[Any]:
        return np.asarray(self.rows[np.asarray(indices)])

    def pictures(self, indices: Sequence[int]) -> list[npt.NDArray[np.uint8]]:
        raise NotImplementedError("features are no pictures")

    def subset(self, indices: Sequence[int]) -> "FeatureSplit":
        chosen = np.asarray(indices)
        return FeatureSplit(self.rows[chosen], self._labels[chosen])

    def joined(self, other: Split) -> "FeatureSplit":
        raise NotImplementedError("features are of one split")

    def batches(self, size: int) -> Any:
        return self._read(np.arange(len(self)), size)

    def shuffled_batches(self, size: int, seed: int) -> Any:
        import tensorflow as tf

        order = tf.data.Dataset.range(len(self)).shuffle(len(self), seed=seed)
        return self._rows_of(order, size)

    def _read(self, order: Any, size: int) -> Any:
        import tensorflow as tf

        return self._rows_of(tf.data.Dataset.from_tensor_slices(order.astype(np.int64)), size)

    def _rows_of(self, order: Any, size: int) -> Any:
        import tensorflow as tf

        def read(indices: Any) -> Any:
            rows = tf.numpy_function(self.tensors, [indices], tf.float32, stateful=False)
            return tf.ensure_shape(rows, (None, self.rows.shape[1])), tf.gather(self._labels, indices)

        return order.batch(size).map(read)


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


def _head(width: int, head: Head, classes: int) -> Model:
    import keras
    from keras import layers, regularizers

    stack = [layers.Dropout(head.dropout)]
    if head.units:
        stack += [layers.Dense(head.units, activation="relu"), layers.Dropout(head.dropout)]
    return keras.Sequential(
        [
            keras.Input((width,)),
            *stack,
            layers.Dense(classes, activation="softmax", kernel_regularizer=regularizers.L2(HEAD_L2)),
        ]
    )


def _joined(extractor: Model, head: Model, backbone: str, size: int) -> Model:
    import keras

    image = keras.Input((size, size, 3), name="picture")
    return keras.Model(image, head(extractor(normalised(image, BACKBONES[backbone].mode))))
