"""The words for what is found in a photo."""

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
    """A face's rectangle in pixels of the original photo, in face_recognition's order."""

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
    """How well a face can be seen.

    side: pixels of the box in the original photo.
    sharpness: the deviation of the Laplacian of the chip's gray values over their own; a blurred face has little
      (after Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", 2000).
    brightness: the chip's mean gray, 0-255.
    turn: how far the nose is from the middle between the eyes, over the distance of the eyes; 0 looks ahead.
    """

    side: int
    sharpness: float
    brightness: float
    turn: float


@dataclass(frozen=True, slots=True)
class FoundFace:
    """A face that was found, ready to be encoded. confidence: the detector's, above 0; larger is surer."""

    box: Box
    confidence: float
    quality: Quality
    chip: Chip


@dataclass(frozen=True, slots=True)
class Detection:
    """What a photo shows. faces: largest first. tried: the looks that were taken at it, in order.

    width, height: of the photo, upright, in pixels. sha256: of the file's bytes, in hexadecimal.
    """

    faces: tuple[FoundFace, ...]
    tried: tuple[str, ...]
    width: int
    height: int
    sha256: str

    @property
    def chips(self) -> Chips:
        """All faces as one batch, (n, 150, 150, 3)."""
        return np.stack([face.chip for face in self.faces]) if self.faces else np.zeros((0, 150, 150, 3), np.uint8)
