"""Photos to chips: dlib finds the faces and brings them upright. Runs in face processes only.

A photo is looked at in the cheapest way first. Every further look is taken only where the ones before it give a
reason, and is named in the answer:

- as it is, at most `max_side` pixels. HOG sees faces from about 80 pixels there, and costs 32 ms for 800 x 600;
- at double size (x4 the cost): when the faces are small, for then there may be smaller ones; when there are none; and
  of a large photo always, for a passer-by beside a portrait: it is little beside what the whole photo would cost;
- turned by a quarter, a half, three quarters, when there are none: cameras forget, scanners never knew;
- at four times the size: faces from about a fortieth of the long side. When there are none, and of a large photo when
  the second look showed faces that the first could not see;
- at the size of the file, where that is larger still, when there are none.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.contract.image import Photo, Pixels, decode_photo
from serving.contract.image_limits import ImageLimits
from serving.faces.dlib.quality import measure
from serving.faces.dlib.weights import load_dlib, weights_file
from serving.faces.face import CHIP_PADDING, CHIP_SIDE, Box, Detection, DetectorModel, FoundFace

SMALL = 1 / 8  # of the long side; a photo whose largest face is smaller is a scene, and is looked at again
LARGE = 3  # times max_side; a photo whose long side is larger is looked at twice, whatever it shows
VERY_LARGE = 4.5  # times max_side; one that may be looked at a third time, for a fifth of what all of it would cost
SEEN = 70  # pixels; HOG was trained on windows of 80, and sees no smaller boxes
SMALLEST = 20  # pixels; dlib finds faces of 80, and the largest look is four times the size. Its CNN fails below 12
TURNS = (1, 3, 2)  # quarters, counter-clockwise, in the order of how common they are


@dataclass(frozen=True, slots=True)
class Look:
    """One way to look at a photo.

    quarters: turned counter-clockwise; scale: of max_side, in pixels of the file; doublings: of their size after that.
    """

    name: str
    quarters: int = 0
    scale: float = 1
    doublings: int = 0


FIRST = Look("upright")
DOUBLE, QUADRUPLE, WHOLE = "upright, double size", "upright, four times the size", "upright, full size"
TURNED = tuple(Look(f"turned by {90 * quarters} degrees", quarters=quarters) for quarters in TURNS)


@dataclass(frozen=True, slots=True)
class Sighting:
    """A face in the pixels of one look. box: within their bounds."""

    box: Box
    confidence: float


class DlibDetector:
    """Finds faces. limits, max_side (pixels): what a photo may cost; retry: whether to look again for none."""

    def __init__(self, limits: ImageLimits, max_side: int) -> None:
        self._dlib: Any = load_dlib()
        self._limits = limits
        self._max_side = max_side
        self._hog = self._dlib.get_frontal_face_detector()
        self._landmarks = self._dlib.shape_predictor(str(weights_file("landmarks")))
        self._cnn: Any = None

    def find(self, data: bytes, model: DetectorModel = "hog", *, retry: bool = True) -> Detection:
        """All faces of a photo file, largest first. Raises what `decode_photo` raises.

        retry: False looks once; a photo without a face is then done with, whatever its size or turn.
        """
        photo = decode_photo(data, self._limits, self._max_side)
        if min(photo.pixels.shape[:2]) < SMALLEST:
            return Detection((), (), photo.width, photo.height, hashlib.sha256(data).hexdigest())
        tried: list[str] = []
        faces: tuple[FoundFace, ...] = ()
        for look in _looks(photo, self._max_side, model):
            if tried and not _worth_another(look, faces, photo, self._max_side, retry=retry):
                continue
            tried.append(look.name)
            seen = self._seen(data, photo, look, model)
            faces = seen if len(seen) > len(faces) else faces
        ordered = tuple(sorted(faces, key=lambda face: -face.box.side))
        return Detection(ordered, tuple(tried), photo.width, photo.height, hashlib.sha256(data).hexdigest())

    def _seen(self, data: bytes, photo: Photo, look: Look, model: DetectorModel) -> tuple[FoundFace, ...]:
        if look.scale > 1:
            photo = decode_photo(data, self._limits, round(self._max_side * look.scale))
        pixels = np.rot90(photo.pixels, look.quarters).copy()  # dlib wants the strides of a fresh array
        sightings = self._sightings(pixels, model, look.doublings)
        return tuple(self._face(pixels, sighting, photo, look.quarters) for sighting in sightings)

    def _sightings(self, pixels: Pixels, model: DetectorModel, doublings: int) -> list[Sighting]:
        if model == "hog":
            rectangles, scores, _ = self._hog.run(pixels, doublings, 0.0)
        else:
            found = self._cnn_detector()(pixels, doublings)
            rectangles, scores = [each.rect for each in found], [each.confidence for each in found]
        height, width = pixels.shape[:2]
        boxes = [_trimmed(rectangle, width, height) for rectangle in rectangles]
        return [
            Sighting(box, float(score))
            for box, score in zip(boxes, scores, strict=True)
            if box.bottom > box.top and box.right > box.left
        ]

    def _cnn_detector(self) -> Any:
        if self._cnn is None:
            self._cnn = self._dlib.cnn_face_detection_model_v1(str(weights_file("cnn")))
        return self._cnn

    def _face(self, pixels: Pixels, sighting: Sighting, photo: Photo, quarters: int) -> FoundFace:
        box = sighting.box
        rectangle = self._dlib.rectangle(box.left, box.top, box.right, box.bottom)
        landmarks = self._landmarks(pixels, rectangle)
        chip = np.asarray(self._dlib.get_face_chip(pixels, landmarks, size=CHIP_SIDE, padding=CHIP_PADDING))
        original = _in_original(_turned_back(box, quarters, photo), photo)
        points = np.asarray([(point.x, point.y) for point in landmarks.parts()], np.float64)
        return FoundFace(original, sighting.confidence, measure(original.side, chip, points), chip)


def _looks(photo: Photo, max_side: int, model: DetectorModel) -> Iterator[Look]:
    """All looks that a photo may be worth, in their order."""
    size = max(photo.width, photo.height) / max_side  # of the file, in units of the first look
    yield FIRST
    yield _enlarged(DOUBLE, 2, size)
    yield from TURNED
    yield _enlarged(QUADRUPLE, 4, size)
    if size > 4 and model == "hog":  # the CNN's memory grows with the picture
        yield Look(WHOLE, scale=size)


def _enlarged(name: str, times: int, size: float) -> Look:
    """So many times the first look's size: with pixels of the file as far as it has them, doubled for the rest."""
    if size >= times:
        return Look(name, scale=times)
    scale = 2 if times == 4 and size > 1 else 1
    return Look(name, scale=scale, doublings=(times // scale).bit_length() - 1)


def _worth_another(look: Look, faces: Sequence[FoundFace], photo: Photo, max_side: int, *, retry: bool) -> bool:
    """Whether to look once more, given the faces that were found until now."""
    if not faces:
        return retry
    sides = [face.box.side for face in faces]
    size = max(photo.width, photo.height)
    if look.name == DOUBLE:
        return max(sides) < SMALL * size or size >= LARGE * max_side
    # a face that only the second look could see
    return look.name == QUADRUPLE and size >= VERY_LARGE * max_side and min(sides) < SEEN * size / max_side


def _trimmed(rectangle: Any, width: int, height: int) -> Box:
    """dlib's rectangle inside the picture, as face_recognition trims it before it encodes."""
    return Box(
        top=max(rectangle.top(), 0),
        right=min(rectangle.right(), width),
        bottom=min(rectangle.bottom(), height),
        left=max(rectangle.left(), 0),
    )


def _turned_back(box: Box, quarters: int, photo: Photo) -> Box:
    """A box of `np.rot90(photo.pixels, quarters)` in the coordinates of photo.pixels."""
    height, width = photo.pixels.shape[:2]
    for quarter in range(quarters, 0, -1):
        # before its last quarter the frame lay like the photo, or across it
        side = width if quarter % 2 else height
        box = Box(top=box.left, right=side - box.top, bottom=box.right, left=side - box.bottom)
    return box


def _in_original(box: Box, photo: Photo) -> Box:
    height, width = photo.pixels.shape[:2]
    x, y = photo.width / width, photo.height / height
    return Box(round(box.top * y), round(box.right * x), round(box.bottom * y), round(box.left * x))
