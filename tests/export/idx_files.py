"""Write the four files of MNIST's format."""

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.data.datasets import IDX_FILES

Bytes = npt.NDArray[np.uint8]


def write_idx_files(folder: Path, train: tuple[Bytes, Bytes], test: tuple[Bytes, Bytes]) -> None:
    """Write images (n, h, w) and labels (n,) of the training and the test set."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in zip(IDX_FILES, (*train, *test), strict=True):
        write_idx(folder / name, values)


def write_idx(path: Path, values: Bytes) -> None:
    """Write one array: 0, 0, 8 (unsigned bytes), the number of axes, the length of each, the values."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes(), 1))


def noise(n: int) -> tuple[Bytes, Bytes]:
    """Make images of 28 x 28 of noise, of ten classes in turn."""
    random = np.random.default_rng(n)
    return random.integers(0, 255, (n, 28, 28)).astype(np.uint8), (np.arange(n) % 10).astype(np.uint8)
