"""Find data sets, read them and split them.

docs/export.md gives the order in which places are searched; the error for a data set that is nowhere lists them all.
Every tensor comes from `Preprocessing.apply`, so a model is trained on exactly what it will be served.
"""

import gzip
import hashlib
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from serving.contract.card import Class, Source
from serving.contract.errors import DataNotFound, InvalidData
from serving.contract.image import Pixels
from serving.contract.preprocessing import Preprocessing, Tensor

Labels = npt.NDArray[np.int64]

IDX_FILES = (  # the four official names, in the order images and labels of training, images and labels of test
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
KERAS_HOST = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
CONNECT_SECONDS = 5  # until the network counts as missing


@dataclass(frozen=True, slots=True)
class Places:
    """The places where data is looked for, in this order.

    data: the folder of --data. root: the folder of SIGHTLINE_DATA. keras: the folder of Keras's downloads.
    """

    data: Path | None
    root: Path | None
    keras: Path


class Split(Protocol):
    """A part of a data set: images, and the index of each one's class."""

    @property
    def labels(self) -> Labels: ...

    def __len__(self) -> int: ...

    def tensors(self, indices: Sequence[int]) -> npt.NDArray[Any]:
        """Preprocess these images for the model. Returns uint8 or float32 (len(indices), h, w, c)."""

    def pictures(self, indices: Sequence[int]) -> list[Pixels]:
        """Read these images as they were before preprocessing: uint8 (H, W, 3) each."""

    def subset(self, indices: Sequence[int]) -> "Split":
        """Choose these images, in this order; an index may occur more than once."""

    def joined(self, other: "Split") -> "Split":
        """Append the images of another split of the same kind."""

    def batches(self, size: int) -> Any:
        """Make a tf.data.Dataset of (tensors (size, h, w, c), labels (size,)), in order."""

    def shuffled_batches(self, size: int, seed: int) -> Any:
        """The same batches in an order that is new in each epoch and follows from the seed."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """The images that a model is trained and evaluated on. validation is part of the training images, never of test."""

    train: Split
    validation: Split
    test: Split
    labels: tuple[Class, ...]
    source: Source
    preprocessing: Preprocessing


@dataclass(frozen=True, slots=True)
class Arrays:
    """Small images of one size, all in memory. images: uint8 (n, H, W) or (n, H, W, 3); labels: int (n,)."""

    images: Pixels
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


class ArraySplit:
    """A split that is held in memory: tens of thousands of small images. tensors: (n, h, w, c)."""

    def __init__(self, arrays: Arrays, tensors: npt.NDArray[Any]) -> None:
        self.arrays = arrays
        self.all_tensors = tensors

    @classmethod
    def prepared(cls, arrays: Arrays, preprocessing: Preprocessing) -> "ArraySplit":
        """Preprocess all images."""
        return cls(arrays, np.stack([preprocessing.apply(rgb(image)) for image in arrays.images]))

    @property
    def labels(self) -> Labels:
        return self.arrays.labels

    def __len__(self) -> int:
        return len(self.labels)

    def tensors(self, indices: Sequence[int]) -> npt.NDArray[Any]:
        chosen: npt.NDArray[Any] = self.all_tensors[np.asarray(indices)]
        return chosen

    def pictures(self, indices: Sequence[int]) -> list[Pixels]:
        return [rgb(self.arrays.images[index]) for index in indices]

    def subset(self, indices: Sequence[int]) -> "ArraySplit":
        chosen = np.asarray(indices)
        return ArraySplit(Arrays(self.arrays.images[chosen], self.labels[chosen]), self.all_tensors[chosen])

    def joined(self, other: "Split") -> "ArraySplit":
        assert isinstance(other, ArraySplit)
        arrays = Arrays(
            np.concatenate([self.arrays.images, other.arrays.images]), np.concatenate([self.labels, other.labels])
        )
        return ArraySplit(arrays, np.concatenate([self.all_tensors, other.all_tensors]))

    def batches(self, size: int) -> Any:
        return self._dataset().batch(size)

    def shuffled_batches(self, size: int, seed: int) -> Any:
        return self._dataset().shuffle(len(self), seed=seed).batch(size)

    def _dataset(self) -> Any:
        import tensorflow as tf

        return tf.data.Dataset.from_tensor_slices((self.all_tensors, self.labels))


def rgb(image: Pixels) -> Pixels:
    """Convert a gray image to three channels. image: uint8 (H, W) or (H, W, 3). Returns uint8 (H, W, 3)."""
    return np.stack([image] * 3, axis=-1) if image.ndim == 2 else image


def stratified(labels: Labels, share: float, seed: int) -> tuple[Labels, Labels]:
    """Hold out `share` of every class, at least one image. Returns the indices that stay and those held out.

    Raises InvalidData where a class has fewer than two images.
    """
    random = np.random.default_rng(seed)
    held: list[int] = []
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        if len(members) < 2:
            raise InvalidData(
                f"Class {label} has {len(members)} image; training and validation need one each.",
                hint="Add images of that class, or leave the class out.",
            )
        held.extend(members[: max(1, round(share * len(members)))].tolist())
    is_held = np.zeros(len(labels), bool)
    is_held[held] = True
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def split_arrays(
    train: Arrays,
    test: Arrays,
    *,
    labels: tuple[Class, ...],
    source: Source,
    preprocessing: Preprocessing,
    validation_share: float,
    seed: int,
) -> DataSet:
    """Make a data set of arrays; the validation split is a share of each class of the training images."""
    kept, held = stratified(train.labels, validation_share, seed)
    development = ArraySplit.prepared(train, preprocessing)
    return DataSet(
        train=development.subset(kept.tolist()),
        validation=development.subset(held.tolist()),
        test=ArraySplit.prepared(test, preprocessing),
        labels=labels,
        source=source,
        preprocessing=preprocessing,
    )


def find_folder(places: Places, name: str, files: Iterable[str]) -> Path | None:
    """Find the first folder that holds all the files: DIR/name or DIR, of --data, then of SIGHTLINE_DATA; else None.

    Raises DataNotFound where --data was given and does not hold them: no other folder takes its place.
    """
    wanted = tuple(files)
    for root in (places.data, places.root):
        for folder in (root / name, root) if root else ():
            if all((folder / file).is_file() for file in wanted):
                return folder
        if places.data and root == places.data:
            raise DataNotFound(
                f"Neither --data {places.data} nor {places.data / name} holds {', '.join(wanted)}.",
                hint="Name the folder that holds these files.",
            )
    return None


def load_idx(folder: Path) -> tuple[Arrays, Arrays]:
    """Read training and test images in the IDX format of MNIST (gz).

    Raises InvalidData where a file is damaged, or images and labels differ in number.
    """
    train_images, train_labels, test_images, test_labels = (read_idx(folder / name) for name in IDX_FILES)
    return _arrays(train_images, train_labels, folder), _arrays(test_images, test_labels, folder)


def read_idx(path: Path) -> Pixels:
    """Read one gz file of the IDX format.

    0, 0, 8 (unsigned bytes), the number of axes, the length of each as uint32, the values.
    Source: yann.lecun.com/exdb/mnist, "FILE FORMATS". Raises InvalidData.
    """
    try:
        data = gzip.decompress(path.read_bytes())
        axes = data[3]
        shape = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes))
        if data[:3] != b"\0\0\x08":
            raise ValueError(f"it begins with {data[:4]!r}, not with 0, 0, 8")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError) as exc:
        raise InvalidData(f"{path} is not a gz file of the IDX format: {exc}.", hint="Download it again.") from exc


def _arrays(images: Pixels, labels: Pixels, folder: Path) -> Arrays:
    if len(images) != len(labels):
        raise InvalidData(
            f"{folder} holds {len(images)} images and {len(labels)} labels.", hint="Download the data set again."
        )
    return Arrays(images, labels.astype(np.int64))


def sha256_of_files(paths: Iterable[Path]) -> str:
    """Hash the bytes of all files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def sha256_of_arrays(*parts: Arrays) -> str:
    """Hash images and labels that have no files of their own."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part.images).tobytes())
        digest.update(part.labels.tobytes())
    return digest.hexdigest()


def check_host(url: str) -> None:
    """Check within CONNECT_SECONDS that a download can begin. Raises DataNotFound with the reason."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=CONNECT_SECONDS):
            pass
    except (OSError, urllib.error.URLError) as exc:
        reason = exc.reason if isinstance(exc, urllib.error.URLError) else exc
        raise DataNotFound(f"{url} cannot be reached: {reason}.") from exc


def download_with_keras(load: Any, cached: Path, url: str) -> tuple[Arrays, Arrays]:
    """Load a data set of `keras.datasets`, downloading it unless it is cached. Raises DataNotFound.

    load: `keras.datasets.mnist.load_data` or the like. cached: a file that exists once the set has been downloaded.
    """
    if not cached.exists():
        check_host(url)
    try:
        (train_images, train_labels), (test_images, test_labels) = load()
    except Exception as exc:  # Keras raises a bare Exception when a download fails
        raise DataNotFound(f"{url} could not be downloaded: {exc}.") from exc
    return (
        Arrays(train_images, train_labels.reshape(-1).astype(np.int64)),
        Arrays(test_images, test_labels.reshape(-1).astype(np.int64)),
    )


def batches_of(split: Split, size: int) -> Iterable[tuple[list[int], Tensor]]:
    """Iterate over the tensors of a split in order, in batches, each with its indices."""
    for start in range(0, len(split), size):
        indices = list(range(start, min(start + size, len(split))))
        yield indices, split.tensors(indices)
