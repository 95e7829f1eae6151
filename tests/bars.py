"""A tiny model of generated images: bars, upright or lying."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from export.data.datasets import Arrays, DataSet, split_arrays
from export.families.fashion import PREPROCESSING
from export.options import Target
from export.pipeline import Recipe, export
from export.training.fit import Plan
from export.training.train import train
from serving.contract.card import Class, Source


def bars(n: int, seed: int) -> Arrays:
    """Draw images of 28 x 28 with a bright bar, upright (class 0) or lying (class 1)."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 60, (n, 28, 28)).astype(np.uint8)
    labels = np.arange(n) % 2
    for image, label in zip(images, labels, strict=True):
        at = random.integers(4, 20)
        bar = image[:, at : at + 5] if label == 0 else image[at : at + 5]
        bar[:] = 250
    return Arrays(images, labels.astype(np.int64))


def bars_data(seed: int = 0) -> DataSet:
    return split_arrays(
        bars(120, 1),
        bars(40, 2),
        labels=(Class("0", "upright"), Class("1", "lying")),
        source=Source("dataset", "bars", "0" * 64),
        preprocessing=PREPROCESSING,
        validation_share=0.1,
        seed=seed,
    )


def tiny(shape: tuple[int, int, int], classes: int) -> Any:
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 5, 2, activation="relu"),
            layers.Flatten(),
            layers.Dense(classes, activation="softmax"),
        ]
    )


def bars_recipe(epochs: int = 12, seed: int = 0, build: Callable[..., Any] = tiny) -> Recipe:
    plan = Plan(epochs=epochs, batch_size=16, learning_rate=1e-2, patience=5, seed=seed)
    return Recipe("bars", partial(train, partial(bars_data, seed), build, plan))


def export_bars(models: Path) -> Path:
    """Train and publish it. Returns the version's directory."""
    return export(bars_recipe(), Target(models, "bars"))


def scale_weights(version: Path, factor: float) -> None:
    """Write the SavedModel's variables anew, with other numbers."""
    import tensorflow as tf

    prefix = str(version / "variables" / "variables")
    stored = tf.train.load_checkpoint(prefix)
    values = {name: stored.get_tensor(name) for name in stored.get_variable_to_shape_map()}
    changed = [v * np.float32(factor) if getattr(v, "dtype", None) == np.float32 else v for v in values.values()]
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=list(values), shape_and_slices=[""] * len(values), tensors=changed)


def swap_labels(file: Path) -> None:
    """Swap the labels of the card in a file; its length stays."""
    content = file.read_bytes()
    names = b'"name": "upright"}, {"id": "1", "name": "lying"}', b'"name": "lying"}, {"id": "1", "name": "upright"}'
    assert content.count(names[0]) >= 1
    file.write_bytes(content.replace(*names))
