"""Fit a Keras model to a data set.

Two models share their weights. The *core* is what is served: float32 (n, h, w, c) in 0-255 to probabilities (n, k), its
scaling inside. The *trainer* is the core behind the layers that augment, which only training needs.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from export.datasets import DataSet
from export.progress import say, training_progress

Model = Any  # keras.Model; Keras has no types
Layer = Any  # keras.layers.Layer


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast. The learning rate rises over the first epoch and then falls along a cosine to zero.

    patience: epochs without a better validation loss after which training stops; the best epoch's weights are kept.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int
    seed: int


@dataclass(frozen=True, slots=True)
class Trained:
    """A model ready to be served. model: the core. epochs: that were run; seconds: of the wall clock."""

    model: Model
    epochs: int
    seconds: float
    seed: int


def train(
    data: DataSet,
    build: Callable[[tuple[int, int, int], int], Model],
    augmentation: Callable[[], Sequence[Layer]],
    plan: Plan,
) -> Trained:
    """Build the model and fit it. The same seed on the same machine gives the same weights.

    build: (shape (h, w, c), classes) to the core. augmentation: the layers that vary a picture, each time anew.
    """
    import keras

    keras.utils.set_random_seed(plan.seed)
    started = time.monotonic()
    shape = data.train.tensors([0]).shape[1:]
    core = build(shape, len(data.labels))
    trainer = _trainer(core, shape, augmentation())
    steps = -(-len(data.train) // plan.batch_size)
    trainer.compile(_optimizer(plan, steps), "sparse_categorical_crossentropy", metrics=["accuracy"])
    say(f"training on {len(data.train):,} pictures, {core.count_params():,} parameters, at most {plan.epochs} epochs")
    history = trainer.fit(
        _prefetched(data.train.shuffled_batches(plan.batch_size, plan.seed)),
        validation_data=_prefetched(data.validation.batches(max(plan.batch_size, 256))),
        epochs=plan.epochs,
        verbose=0,
        shuffle=False,  # the data set is shuffled already
        callbacks=[
            keras.callbacks.EarlyStopping(monitor="val_loss", patience=plan.patience, restore_best_weights=True),
            training_progress(plan.epochs, steps),
        ],
    )
    return Trained(core, len(history.epoch), time.monotonic() - started, plan.seed)


def _trainer(core: Model, shape: tuple[int, ...], layers: Sequence[Layer]) -> Model:
    import keras

    image = keras.Input(shape, name="picture")
    varied = image
    for layer in layers:
        varied = layer(varied)
    return keras.Model(image, core(varied))


def _optimizer(plan: Plan, steps: int) -> Any:
    import keras

    warmup = min(steps, plan.epochs * steps // 2)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, plan.epochs * steps - warmup),
        warmup_target=plan.learning_rate,
        warmup_steps=warmup,
    )
    return keras.optimizers.Adam(schedule)


def _prefetched(batches: Any) -> Any:
    import tensorflow as tf

    return batches.map(lambda x, y: (tf.cast(x, tf.float32), y)).prefetch(2)
