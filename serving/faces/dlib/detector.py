"""Detect faces with dlib and align them: from a photo to chips. Runs in face processes only.

The cheapest pass comes first. Each further pass runs only if the results so far give a reason, and is named in
`Detection.tried`:

1. upright, shrunk to `max_side` pixels. HOG detects faces from about 80 pixels; 32 ms for 800 x 600;
2. at double size (4 times the cost): if the faces are small, since there may be smaller ones; if there are none; and
   always for a large photo, which may show a passer-by beside a portrait;
3. turned by 90, 270 and 180 degrees, if there are none: some cameras and all scanners write no orientation;
4. at four times the size (faces from about 1/40 of the long side): if there are none, and for a large photo if pass 2
   found faces that pass 1 could not;
5. at the file's own size, where that is larger still: if there are none.

The passes of one photo share a budget of pixels, so that no photo holds a process for long: a pass that does not fit is
left out.
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

SMALL = 1 / 8  # of the long side; a photo whose largest face is smaller is a scene and gets pass 2
LARGE = 3  # times max_side; a photo whose long side is larger always gets pass 2
VERY_LARGE = 4.5  # times max_side; a larger photo may get pass 4, at a fifth of the cost of its full size
SEEN = 70  # pixels; HOG was trained on windows of 80 and detects no smaller boxes
SMALLEST = 20  # pixels; 80 / 4: dlib detects faces of 80, and pass 4 quadruples the photo. dlib's CNN fails below 12
# Pixels of all passes of a photo, in multiples of max_side squared. HOG takes 72 ms a megapixel on one core: 2.6 s at a
# max_side of 800, enough for passes 1 to 5 of 24 megapixels. The CNN takes 6 s there: passes 1 and 2.
BUDGET: dict[DetectorModel, int] = {"hog": 56, "cnn": 5}
TURNS = (1, 3, 2)  # quarter turns counter-clockwise, most common first


@dataclass(frozen=True, slots=True)
class DetectionPass:
    """One detection pass.

    quarters: quarter turns counter-clockwise. scale: side to decode the file at, in multiples of max_side.
    doublings: times that dlib then doubles the picture.
    """

    name: str
    quarters: int = 0
    scale: float = 1
    doublings: int = 0


FIRST = DetectionPass("upright")
DOUBLE, QUADRUPLE, WHOLE = "upright, double size", "upright, four times the size", "upright, full size"
TURNED = tuple(DetectionPass(f"turned by {90 * quarters} degrees", quarters=quarters) for quarters in TURNS)


@dataclass(frozen=True, slots=True)
class Sighting:
    """A face in the pixels of one pass. box: within the picture."""

    box: Box
    confidence: float


class DlibDetector:
    """Find faces with dlib. limits: bounds of a photo's file. max_side: long side of the first pass, pixels."""

    def __init__(self, limits: ImageLimits, max_side: int) -> None:
        self._dlib: Any = load_dlib()
        self._limits = limits
        self._max_side = max_side
        self._hog = self._dlib.get_frontal_face_detector()
        self._landmarks = self._dlib.shape_predictor(str(weights_file("landmarks")))
        self._cnn: Any = None

    def find(self, data: bytes, model: DetectorModel = "hog", *, retry: bool = True) -> Detection:
        """Find all faces of a photo file, largest first. Raises what `decode_photo` raises.

        retry: False stops after the first pass if it finds no face.
        """
        photo = decode_photo(data, self._limits, self._max_side)
        if min(photo.pixels.shape[:2]) < SMALLEST:
            return Detection((), (), photo.width, photo.height, hashlib.sha256(data).hexdigest())
        tried: list[str] = []
        faces: tuple[FoundFace, ...] = ()
        budget = BUDGET[model] * self._max_side**2
        for pass_ in _passes(photo, self._max_side, model):
            if tried and not _worth_another(pass_, faces, photo, self._max_side, retry=retry):
                continue
            if (cost := _pixels(pass_, photo, self._max_side)) > budget:
                continue
            budget -= cost
            tried.append(pass_.name)
            seen = self._seen(data, photo, pass_, model)
            faces = seen if len(seen) > len(faces) else faces
        ordered = tuple(sorted(faces, key=lambda face: -face.box.side))
        return Detection(ordered, tuple(tried), photo.width, photo.height, hashlib.sha256(data).hexdigest())

    def _seen(self, data: bytes, photo: Photo, pass_: DetectionPass, model: DetectorModel) -> tuple[FoundFace, ...]:
        if pass_.scale > 1:
            photo = decode_photo(data, self._limits, round(self._max_side * pass_.scale))
        pixels = np.rot90(photo.pixels, pass_.quarters).copy()  # dlib needs a contiguous array
        sightings = self._sightings(pixels, model, pass_.doublings)
        return tuple(self._face(pixels, sighting, photo, pass_.quarters) for sighting in sightings)

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


def _passes(photo: Photo, max_side: int, model: DetectorModel) -> Iterator[DetectionPass]:
    """Yield all passes that a photo may get, in order."""
    size = max(photo.width, photo.height) / max_side  # of the file, in multiples of pass 1
    yield FIRST
    yield _enlarged(DOUBLE, 2, size)
    yield from TURNED
    yield _enlarged(QUADRUPLE, 4, size)
    if size > 4 and model == "hog":  # the CNN's memory grows with the picture
        yield DetectionPass(WHOLE, scale=size)


def _enlarged(name: str, times: int, size: float) -> DetectionPass:
    """A pass at `times` the size of the first: from the file's pixels as far as it has them, doubled for the rest."""
    if size >= times:
        return DetectionPass(name, scale=times)
    scale = 2 if times == 4 and size > 1 else 1
    return DetectionPass(name, scale=scale, doublings=(times // scale).bit_length() - 1)


def _pixels(pass_: DetectionPass, photo: Photo, max_side: int) -> int:
    """Return the number of pixels that dlib looks at in a pass."""
    shrunk = min(1.0, pass_.scale * max_side / max(photo.width, photo.height))
    return round(photo.width * photo.height * shrunk**2) << (2 * pass_.doublings)


def _worth_another(
    pass_: DetectionPass, faces: Sequence[FoundFace], photo: Photo, max_side: int, *, retry: bool
) -> bool:
    """Tell whether another pass is worth its cost, given the faces found so far."""
    if not faces:
        return retry
    sides = [face.box.side for face in faces]
    size = max(photo.width, photo.height)
    if pass_.name == DOUBLE:
        return max(sides) < SMALL * size or size >= LARGE * max_side
    # pass 2 found a face that pass 1 could not
    return pass_.name == QUADRUPLE and size >= VERY_LARGE * max_side and min(sides) < SEEN * size / max_side


def _trimmed(rectangle: Any, width: int, height: int) -> Box:
    """Clip dlib's rectangle to the picture, as face_recognition does before encoding."""
    return Box(
        top=max(rectangle.top(), 0),
        right=min(rectangle.right(), width),
        bottom=min(rectangle.bottom(), height),
        left=max(rectangle.left(), 0),
    )


def _turned_back(box: Box, quarters: int, photo: Photo) -> Box:
    """Map a box of `np.rot90(photo.pixels, quarters)` back to the coordinates of photo.pixels."""
    height, width = photo.pixels.shape[:2]
    for quarter in range(quarters, 0, -1):
        # before this quarter turn the frame was upright (even) or sideways (odd)
        side = width if quarter % 2 else height
        box = Box(top=box.left, right=side - box.top, bottom=box.right, left=side - box.bottom)
    return box


def _in_original(box: Box, photo: Photo) -> Box:
    height, width = photo.pixels.shape[:2]
    x, y = photo.width / width, photo.height / height
    return Box(round(box.top * y), round(box.right * x), round(box.bottom * y), round(box.left * x))
