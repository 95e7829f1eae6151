"""Handwritten digits: MNIST, or scikit-learn's small digits where there is no network.

People draw dark on light, anywhere on the sheet, with any pen: `fit ink` frames their drawings as MNIST's are framed.
"""

from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from export.data.datasets import (
    IDX_FILES,
    KERAS_HOST,
    Arrays,
    DataSet,
    Places,
    download_with_keras,
    find_folder,
    load_idx,
    sha256_of_arrays,
    sha256_of_files,
    split_arrays,
    stratified,
)
from export.data.uint8_input import uint8_preprocessing
from export.networks import small
from export.options import Environment, Target, TrainingOptions, arch_option, training_options
from export.pipeline import Recipe, export
from export.progress import say
from export.training.train import train
from serving.contract.card import Class, Source
from serving.contract.errors import DataNotFound

LABELS = tuple(Class(str(digit), str(digit)) for digit in range(10))
PREPROCESSING = uint8_preprocessing("gray", (28, 28), "ink", polarity="dark_background")
ARCHITECTURES = small.SMALL_GRAY
# Digits lean, move and vary in size; they are never mirrored.
AUGMENTATION = {"rotation": 0.04, "shift": 0.08, "zoom": 0.12}
VALIDATION_SHARE = 0.05
SMALL_SIDE, SMALL_FRAME = 20, 28  # an 8 x 8 digit is enlarged to MNIST's box in MNIST's frame


@click.command("digits")
@arch_option(ARCHITECTURES)
@training_options
@click.pass_obj
def command(environment: Environment, *, training: TrainingOptions, target: Target, arch: str) -> None:
    """Handwritten digits, 28 x 28.

    \b
    sightline export digits
    sightline export digits --data ~/mnist --epochs 3 --name quick
    """
    plan = training.plan(
        target,
        AUGMENTATION,
        epochs=10,
        batch_size=128,
        learning_rate=2e-3,
        patience=4,
    )
    load_data = partial(load, environment.places(training.data), training.seed)
    export(Recipe("digits", partial(train, load_data, ARCHITECTURES[arch], plan)), target)


def load(places: Places, seed: int) -> DataSet:
    """Load MNIST from a folder or from Keras, else scikit-learn's 8 x 8 digits. Raises DataNotFound."""
    tried = []
    folder = find_folder(places, "digits", IDX_FILES)
    if folder:
        return _data_set(*load_idx(folder), _source_of_files(folder), seed)
    tried.append(f"There is no {IDX_FILES[0]} in --data or SIGHTLINE_DATA.")
    for source in (partial(_from_keras, places), partial(_from_scikit_learn, seed)):
        try:
            return _data_set(*source(), seed)
        except DataNotFound as exc:
            tried.append(exc.detail)
            say(exc.detail)
    raise DataNotFound(
        "No data for digits. " + " ".join(tried),
        hint="Download MNIST's four idx-ubyte.gz files and name their folder with --data.",
    )


LoadedArrays = tuple[Arrays, Arrays, Source]  # of training, of test


def _data_set(train_part: Arrays, test_part: Arrays, source: Source, seed: int) -> DataSet:
    return split_arrays(
        train_part,
        test_part,
        labels=LABELS,
        source=source,
        preprocessing=PREPROCESSING,
        validation_share=VALIDATION_SHARE,
        seed=seed,
    )


def _source_of_files(folder: Path) -> Source:
    return Source("dataset", f"MNIST ({folder.name})", sha256_of_files(folder / name for name in IDX_FILES))


def _from_keras(places: Places) -> LoadedArrays:
    import keras

    train_part, test_part = download_with_keras(
        keras.datasets.mnist.load_data, places.keras / "datasets" / "mnist.npz", KERAS_HOST + "mnist.npz"
    )
    return train_part, test_part, Source("dataset", "MNIST (keras.datasets)", sha256_of_arrays(train_part, test_part))


def _from_scikit_learn(seed: int) -> LoadedArrays:
    """Enlarge scikit-learn's 1,797 digits of 8 x 8 (UCI, Alpaydin and Kaynak 1998) and frame them as MNIST does."""
    from sklearn.datasets import load_digits

    say("using scikit-learn's 1,797 digits of 8 x 8 pixels instead; accuracy will be lower than with MNIST")
    bunch = load_digits()
    images = np.stack([_enlarged((image * 255 / 16).astype(np.uint8)) for image in bunch.images])
    every = Arrays(images, bunch.target.astype(np.int64))
    kept, held = stratified(every.labels, 0.2, seed)
    source = Source("dataset", "scikit-learn's 8x8 digits, enlarged to 28x28", sha256_of_arrays(every))
    return Arrays(images[kept], every.labels[kept]), Arrays(images[held], every.labels[held]), source


def _enlarged(image: Any) -> Any:
    margin = (SMALL_FRAME - SMALL_SIDE) // 2
    large = Image.fromarray(image).resize((SMALL_SIDE, SMALL_SIDE), Image.Resampling.BICUBIC)
    return np.pad(np.asarray(large), margin)
