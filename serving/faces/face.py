"""The data of detection: boxes, qualities and chips of the faces in a photo."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

CHIP_SIDE = 150  # pixels; what dlib's face encoder was trained on
CHIP_PADDING = 0.25  # of the face, all round; likewise
ENCODING_SIZE = 128

Chip = npt.NDArray[np.uint8]  # (150, 150, 3), RGB: one face, upright and centred by its eyes
Chips = npt.NDArray[np.uint8]  # (n, 150, 150, 3)
Encodings = npt.NDArray[np.float32]  # (n, 128); the distance of two faces is the Euclidean one
DetectorModel = Literal["hog", "cnn"]


@dataclass(frozen=True, slots=True)
class Box:
    """A face's rectangle in pixels of the original, upright photo; the order is face_recognition's."""

    top: int
    right: int
    bottom: int
    left: int

    @property
    def side(self) -> int:
        """The longer side in pixels."""
        return max(self.bottom - self.top, self.right - self.left)


@dataclass(frozen=True, slots=True)
class Quality:
    """Measurements of how well a face can be seen.

    side: longer side of the box in the original photo, pixels.
    sharpness: standard deviation of the Laplacian of the chip's gray values over that of the gray values; low for a
      blurred face (after Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", 2000).
    brightness: the chip's mean gray value, 0-255.
    turn: offset of the nose from the midpoint of the eyes, over the distance of the eyes; 0 looks straight ahead.
    """

    side: int
    sharpness: float
    brightness: float
    turn: float


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason against a face or photo. code: machine-readable; text: a sentence for the person with the camera.

    measured, limit: the measurement and the limit it missed; None where the reason has none.
    """

    code: str
    text: str
    measured: float | None = None
    limit: float | None = None


def too_poor(quality: Quality, *, side: float, sharpness: float) -> Iterator[Reason]:
    """Yield the reasons why a face is too small (below `side` pixels) or too blurred (below `sharpness`)."""
    if quality.side < side:
        yield Reason("too_small", "The face is too small: come closer.", quality.side, side)
    if quality.sharpness < sharpness:
        yield Reason("blurred", "The face is blurred: hold still or focus.", quality.sharpness, sharpness)


@dataclass(frozen=True, slots=True)
class FoundFace:
    """A detected face, ready to be encoded. confidence: the detector's score, above 0; larger is surer."""

    box: Box
    confidence: float
    quality: Quality
    chip: Chip


@dataclass(frozen=True, slots=True)
class Detection:
    """The faces of one photo.

    faces: largest first. tried: names of the detection passes that ran, in order.
    width, height: of the upright photo, pixels. sha256: of the file's bytes, hexadecimal.
    """

    faces: tuple[FoundFace, ...]
    tried: tuple[str, ...]
    width: int
    height: int
    sha256: str

    @property
    def chips(self) -> Chips:
        """The chips of all faces as one batch, uint8 (n, 150, 150, 3)."""
        return (
            np.stack([face.chip for face in self.faces])
            if self.faces
            else np.zeros((0, CHIP_SIDE, CHIP_SIDE, 3), np.uint8)
        )
