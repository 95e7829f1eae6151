"""How well a face can be seen, in numbers."""

import numpy as np
import numpy.typing as npt

from serving.faces.face import Chip, Quality

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def measure(side: int, chip: Chip, landmarks: npt.NDArray[np.float64]) -> Quality:
    """The quality of one face.

    side: pixels of its box in the original photo. landmarks: float64 (5, 2), dlib's five points (x, y): the outer
    and inner corner of one eye, of the other, and the base of the nose.
    """
    gray = chip @ LUMA
    return Quality(side, _sharpness(gray), float(gray.mean()), _turn(landmarks))


def _sharpness(gray: npt.NDArray[np.float64]) -> float:
    """The Laplacian's deviation (4 neighbours) over that of the gray values: a dark face is not a blurred one."""
    inner = gray[1:-1, 1:-1]
    laplacian = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:] - 4 * inner
    contrast = float(gray.std())
    return float(laplacian.std()) / contrast if contrast > 0 else 0.0


def _turn(points: npt.NDArray[np.float64]) -> float:
    """How far the nose is from the middle of the eyes, along the line of the eyes, over their distance."""
    one, other = points[:2].mean(axis=0), points[2:4].mean(axis=0)
    axis = other - one
    squared = float(axis @ axis)
    return abs(float((points[4] - (one + other) / 2) @ axis) / squared) if squared > 0 else 1.0
