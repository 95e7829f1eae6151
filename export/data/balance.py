"""What to do when some classes have few pictures."""

import numpy as np

from export.data.datasets import Arrays, ArraySplit, Labels, Split
from serving.contract.errors import InvalidData, UsageError

BALANCES = ("none", "class-weight", "oversample", "smote")
SMOTE_NEIGHBOURS = 5  # Chawla et al., "SMOTE", 2002


def class_weights(labels: Labels) -> dict[int, float]:
    """A weight for each class that makes all of them count alike: n / (classes * n of the class)."""
    classes, counts = np.unique(labels, return_counts=True)
    return {int(label): len(labels) / (len(classes) * count) for label, count in zip(classes, counts, strict=True)}


def balanced(train: Split, balance: str, seed: int) -> Split:
    """The training split with as many pictures of each class as the largest class has, where `balance` asks for it."""
    if balance == "oversample":
        return train.subset(oversampled(train.labels, seed))
    if balance == "smote":
        return _smote(train, seed)
    return train


def oversampled(labels: Labels, seed: int) -> list[int]:
    """Indices that repeat pictures of small classes until all classes are as large as the largest."""
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
            "--balance smote blends pictures pixel by pixel and needs them all in memory",
            hint="For a folder of photos use --balance oversample or class-weight.",
        )
    smallest = int(np.unique(train.labels, return_counts=True)[1].min())
    if smallest < 2:
        raise InvalidData("--balance smote: a class has one training picture; it needs two to blend")
    smote = SMOTE(random_state=seed, k_neighbors=min(SMOTE_NEIGHBOURS, smallest - 1))
    shape = train.all_tensors.shape[1:]
    flat, labels = smote.fit_resample(train.all_tensors.reshape(len(train), -1).astype(np.float32), train.labels)
    tensors = flat.round().clip(0, 255).astype(train.all_tensors.dtype).reshape(-1, *shape)
    added = tensors[len(train) :]
    images = added if train.arrays.images.ndim == 4 else added[..., 0]
    if images.shape[1:] != train.arrays.images.shape[1:]:
        raise UsageError("--balance smote wants pictures that preprocessing leaves at their size")
    return ArraySplit(Arrays(np.concatenate([train.arrays.images, images]), labels), tensors)
