"""Small colour photos of ten classes: CIFAR-10 (Krizhevsky 2009)."""

from functools import partial
from pathlib import Path

import click
import numpy as np

from export.data.datasets import (
    Arrays,
    DataSet,
    Places,
    download_with_keras,
    find_folder,
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
from serving.contract.errors import DataNotFound, InvalidData

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LABELS = tuple(Class(str(index), name) for index, name in enumerate(NAMES))
PREPROCESSING = uint8_preprocessing("rgb", (32, 32), "crop")
ARCHITECTURES = small.SMALL_RGB
AUGMENTATION = {"flip": 1.0, "shift": 0.1, "zoom": 0.1}
VALIDATION_SHARE = 0.08
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"
RECORD = 1 + 3 * 32 * 32  # bytes: the label, then red, green and blue, row by row
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"


@click.command("cifar")
@arch_option(ARCHITECTURES)
@training_options
@click.pass_obj
def command(environment: Environment, *, training: TrainingOptions, target: Target, arch: str) -> None:
    """Small colour photos of ten classes, 32 x 32.

    \b
    sightline export cifar
    sightline export cifar --data ~/cifar-10-batches-bin --arch cnn
    """
    plan = training.plan(target, AUGMENTATION, epochs=40, batch_size=128, learning_rate=2e-3, patience=8)
    load_data = partial(load, environment.places(training.data), training.seed)
    export(Recipe("cifar", partial(train, load_data, ARCHITECTURES[arch], plan)), target)


def load(places: Places, seed: int) -> DataSet:
    """Load CIFAR-10's binary version from a folder, or Keras's copy. Raises DataNotFound with what was tried."""
    folder = find_folder(places, "cifar", (*TRAIN_FILES, TEST_FILE))
    if folder:
        files = [folder / name for name in (*TRAIN_FILES, TEST_FILE)]
        training, test = read_batches(files[:-1]), read_batches(files[-1:])
        source = Source("dataset", "CIFAR-10", sha256_of_files(files))
    else:
        training, test = _from_keras(places)
        source = Source("dataset", "CIFAR-10 (keras.datasets)", sha256_of_arrays(training, test))
    return split_arrays(
        training,
        test,
        labels=LABELS,
        source=source,
        preprocessing=PREPROCESSING,
        validation_share=VALIDATION_SHARE,
        seed=seed,
    )


def read_batches(paths: list[Path]) -> Arrays:
    """Read files of the binary version. Source: www.cs.toronto.edu/~kriz/cifar.html. Raises InvalidData."""
    parts = []
    for path in paths:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        if data.size == 0 or data.size % RECORD or data[::RECORD].max() >= len(NAMES):
            raise InvalidData(f"{path} is not a batch of CIFAR-10's binary version.", hint="Download it again.")
        parts.append(data.reshape(-1, RECORD))
    records = np.concatenate(parts)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Arrays(np.ascontiguousarray(images), records[:, 0].astype(np.int64))


def _from_keras(places: Places) -> tuple[Arrays, Arrays]:
    import keras

    cached = [places.keras / "datasets" / name for name in ("cifar-10-batches-py-target", "cifar-10-batches-py")]
    try:
        return download_with_keras(
            keras.datasets.cifar10.load_data, next((path for path in cached if path.exists()), cached[0]), URL
        )
    except DataNotFound as exc:
        raise DataNotFound(
            f"No data for cifar. There is no {TRAIN_FILES[0]} in --data or SIGHTLINE_DATA. {exc.detail}",
            hint="Download CIFAR-10's binary version and name its folder with --data.",
        ) from exc
