"""Clothes: Fashion-MNIST.

The images of the set are light on black and fill the frame on their longer side (Xiao, Rasul, Vollgraf 2017, section
2). Most photos of clothes have a light background: `polarity dark_background` inverts those, as the authors did, and
`fit pad` keeps their aspect ratio and pads with black.
"""

from functools import partial
from typing import Any

import click

from export.data.datasets import (
    IDX_FILES,
    KERAS_HOST,
    DataSet,
    Places,
    download_with_keras,
    find_folder,
    load_idx,
    sha256_of_arrays,
    sha256_of_files,
    split_arrays,
)
from export.data.uint8_input import uint8_preprocessing
from export.networks import small
from export.options import Environment, Target, TrainingOptions, arch_option, training_options
from export.pipeline import Recipe, export
from export.training.train import train
from serving.contract.card import Class, Source
from serving.contract.errors import DataNotFound

NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
LABELS = tuple(Class(str(index), name) for index, name in enumerate(NAMES))
PREPROCESSING = uint8_preprocessing("gray", (28, 28), "pad", polarity="dark_background")
ARCHITECTURES = {**small.SMALL_GRAY, "cnn": small.cnn_normalised}
# Clothes may be mirrored, moved, larger and partly hidden.
AUGMENTATION = {"flip": 1.0, "shift": 0.07, "zoom": 0.1, "erasing": 0.5}
VALIDATION_SHARE = 0.1


@click.command("fashion")
@arch_option(ARCHITECTURES)
@training_options
@click.pass_obj
def command(environment: Environment, *, training: TrainingOptions, target: Target, arch: str) -> None:
    """Clothes and shoes, 28 x 28.

    \b
    sightline export fashion
    sightline export fashion --data ~/fashion-mnist --epochs 10
    """
    plan = training.plan(
        target,
        AUGMENTATION,
        epochs=40,
        batch_size=64,
        learning_rate=2e-3,
        patience=12,
    )
    load_data = partial(load, environment.places(training.data), training.seed)
    export(Recipe("fashion", partial(train, load_data, ARCHITECTURES[arch], plan)), target)


def load(places: Places, seed: int) -> DataSet:
    """Load Fashion-MNIST from a folder, from Keras's cache or download. Raises DataNotFound with what was tried."""
    folder = find_folder(places, "fashion", IDX_FILES)
    if folder:
        source = Source("dataset", "Fashion-MNIST", sha256_of_files(folder / name for name in IDX_FILES))
        train_part, test_part = load_idx(folder)
    else:
        train_part, test_part = _from_keras(places)
        source = Source("dataset", "Fashion-MNIST (keras.datasets)", sha256_of_arrays(train_part, test_part))
    return split_arrays(
        train_part,
        test_part,
        labels=LABELS,
        source=source,
        preprocessing=PREPROCESSING,
        validation_share=VALIDATION_SHARE,
        seed=seed,
    )


def _from_keras(places: Places) -> Any:
    import keras

    try:
        return download_with_keras(
            keras.datasets.fashion_mnist.load_data,
            places.keras / "datasets" / "fashion-mnist" / IDX_FILES[-1],
            KERAS_HOST + IDX_FILES[-1],
        )
    except DataNotFound as exc:
        raise DataNotFound(
            f"No data for fashion. There is no {IDX_FILES[0]} in --data or SIGHTLINE_DATA. {exc.detail}",
            hint="Download Fashion-MNIST's four idx-ubyte.gz files and name their folder with --data.",
        ) from exc
