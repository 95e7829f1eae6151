"""Features of a frozen backbone: computed once and kept in a file, so that heads train in seconds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.data.augmentation import Strengths, layers_of
from export.data.datasets import DataSet, Labels, Split, batches_of
from export.networks.keras_graph import KerasModel
from export.networks.pretrained import BACKBONES, normalised

Rows = npt.NDArray[np.float32]  # (images, 1 + variations, f): of the unchanged image, then of its variations

BATCH = 16


class FeatureSplit:
    """A split of features in place of images, so that a head trains like any network.

    `shuffled_batches` gives a random variation of each image in every epoch; everything else, the unchanged image.
    rows: of all images, in a file or in memory. labels: (images,). members: the rows that belong to this split.
    """

    def __init__(self, rows: Rows, labels: Labels, members: npt.NDArray[np.int64]) -> None:
        self._rows = rows
        self._all_labels = labels
        self._members = members

    @property
    def labels(self) -> Labels:
        return self._all_labels[self._members]

    def __len__(self) -> int:
        return len(self._members)

    def tensors(self, indices: Sequence[int]) -> Rows:
        return self._read(np.asarray(indices), 0)

    def pictures(self, indices: Sequence[int]) -> list[npt.NDArray[np.uint8]]:
        raise NotImplementedError("a split of features has no images")

    def subset(self, indices: Sequence[int]) -> "FeatureSplit":
        return FeatureSplit(self._rows, self._all_labels, self._members[np.asarray(indices, np.int64)])

    def joined(self, other: Split) -> "FeatureSplit":
        assert isinstance(other, FeatureSplit)
        assert other._rows is self._rows
        return FeatureSplit(self._rows, self._all_labels, np.concatenate([self._members, other._members]))

    def batches(self, size: int) -> Any:
        import tensorflow as tf

        indices = tf.data.Dataset.range(len(self))
        return self._looked_up(tf.data.Dataset.zip(indices, indices.map(tf.zeros_like)).batch(size))

    def shuffled_batches(self, size: int, seed: int) -> Any:
        import tensorflow as tf

        order = tf.data.Dataset.range(len(self)).shuffle(len(self), seed=seed)
        chance = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
        return self._looked_up(tf.data.Dataset.zip(order, chance).batch(size))

    def _read(self, indices: npt.NDArray[Any], variations: npt.NDArray[Any] | int) -> Rows:
        chosen: Rows = self._rows[self._members[indices], variations % self._rows.shape[1]]
        return chosen

    def _looked_up(self, batches: Any) -> Any:
        """Map batches of (index, variation) to batches of (features, label)."""
        import tensorflow as tf

        def look_up(indices: Any, variations: Any) -> Any:
            features = tf.numpy_function(self._read, [indices, variations], tf.float32, stateful=False)
            return tf.ensure_shape(features, (None, self._rows.shape[2])), tf.gather(self.labels, indices)

        return batches.map(look_up)


def features_of(
    data: DataSet, extractor: KerasModel, backbone: str, file: Path, *, variations: int, strengths: Strengths
) -> tuple[FeatureSplit, FeatureSplit]:
    """Compute the features of the training and the validation split and store them in `file`.

    variations: of each image, besides the unchanged one.
    """
    import tensorflow as tf

    n, width = len(data.train) + len(data.validation), int(extractor.outputs[0].shape[-1])
    rows: Rows = np.lib.format.open_memmap(file, "w+", np.float32, (n, 1 + variations, width))
    layers = layers_of(strengths)
    mode = BACKBONES[backbone].mode
    extract = tf.function(lambda image: extractor(normalised(image, mode), training=False))

    def varied(picture: Any) -> Any:
        for layer in layers:
            picture = layer(picture, training=True)
        return picture

    vary = tf.function(varied)
    start = 0
    for split in (data.train, data.validation):
        for indices, tensors in batches_of(split, BATCH):
            places = slice(start + indices[0], start + indices[-1] + 1)
            picture = tf.cast(tensors, tf.float32)
            for variation in range(1 + variations):
                rows[places, variation] = extract(vary(picture) if variation else picture)
        start += len(split)
    labels = np.concatenate([data.train.labels, data.validation.labels])
    train, validation = np.split(np.arange(n), [len(data.train)])
    return FeatureSplit(rows, labels, train), FeatureSplit(rows, labels, validation)
