"""Measure how well a face can be seen."""

import numpy as np
import numpy.typing as npt

from serving.faces.face import Chip, Quality

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def measure(side: int, chip: Chip, landmarks: npt.NDArray[np.float64]) -> Quality:
    """Measure one face.

    side: longer side of its box in the original photo, pixels. landmarks: float64 (5, 2), dlib's five points (x, y):
    the outer and inner corner of one eye, those of the other eye, and the base of the nose.
    """
    gray = chip @ LUMA
    return Quality(side, _sharpness(gray), float(gray.mean()), _turn(landmarks))


def _sharpness(gray: npt.NDArray[np.float64]) -> float:
    """Deviation of the Laplacian (4 neighbours) over that of the gray values: darkness alone does not lower it."""
    inner = gray[1:-1, 1:-1]
    laplacian = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:] - 4 * inner
    contrast = float(gray.std())
    return float(laplacian.std()) / contrast if contrast > 0 else 0.0


def _turn(points: npt.NDArray[np.float64]) -> float:
    """Offset of the nose from the midpoint of the eyes, along the line of the eyes, over their distance."""
    one, other = points[:2].mean(axis=0), points[2:4].mean(axis=0)
    axis = other - one
    squared = float(axis @ axis)
    return abs(float((points[4] - (one + other) / 2) @ axis) / squared) if squared > 0 else 1.0
