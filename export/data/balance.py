"""Balance data sets in which some classes have few images: class weights, oversampling, SMOTE."""

import numpy as np

from export.data.datasets import Arrays, ArraySplit, Labels, Split
from serving.contract.errors import InvalidData, UsageError

BALANCES = ("none", "class-weight", "oversample", "smote")
SMOTE_NEIGHBOURS = 5  # Chawla et al., "SMOTE", 2002


def class_weights(labels: Labels) -> dict[int, float]:
    """Weight each class so that all count the same: n / (classes * n of the class), as scikit-learn's `balanced`."""
    classes, counts = np.unique(labels, return_counts=True)
    return {int(label): len(labels) / (len(classes) * count) for label, count in zip(classes, counts, strict=True)}


def balance_classes(train: Split, balance: str, seed: int) -> Split:
    """Bring every class to the size of the largest one where `balance` is oversample or smote.

    Raises UsageError, InvalidData where SMOTE cannot work on this split.
    """
    if balance == "oversample":
        return train.subset(oversampled(train.labels, seed))
    if balance == "smote":
        return _smote(train, seed)
    return train


def oversampled(labels: Labels, seed: int) -> list[int]:
    """Repeat images of small classes until every class is as large as the largest. Returns indices."""
    random = np.random.default_rng(seed)
    classes, counts = np.unique(labels, return_counts=True)
    indices = [np.arange(len(labels))]
    for label, count in zip(classes, counts, strict=True):
        indices.append(random.choice(np.flatnonzero(labels == label), counts.max() - count))
    return [int(index) for index in np.concatenate(indices)]


def _smote(train: Split, seed: int) -> Split:
    from imblearn.over_sampling import SMOTE

    if not isinstance(train, ArraySplit):
        raise UsageError(
            "--balance smote blends images pixel by pixel and needs them all in memory.",
            hint="For a folder of photos use --balance oversample or class-weight.",
        )
    smallest = int(np.unique(train.labels, return_counts=True)[1].min())
    if smallest < 2:
        raise InvalidData(
            "--balance smote blends two images of a class, and one class has a single training image.",
            hint="Add images of that class, or use --balance oversample.",
        )
    smote = SMOTE(random_state=seed, k_neighbors=min(SMOTE_NEIGHBOURS, smallest - 1))
    shape = train.all_tensors.shape[1:]
    flat, labels = smote.fit_resample(train.all_tensors.reshape(len(train), -1).astype(np.float32), train.labels)
    tensors = flat.round().clip(0, 255).astype(train.all_tensors.dtype).reshape(-1, *shape)
    added = tensors[len(train) :]
    images = added if train.arrays.images.ndim == 4 else added[..., 0]
    if images.shape[1:] != train.arrays.images.shape[1:]:
        raise UsageError(
            "--balance smote needs images that preprocessing leaves at their size.",
            hint="Use --balance oversample or class-weight.",
        )
    return ArraySplit(Arrays(np.concatenate([train.arrays.images, images]), labels), tensors)
