"""Faces found in photos, by dlib itself."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.contract.errors import NotAnImage
from serving.contract.image import decode_image
from serving.contract.image_limits import ImageLimits
from serving.faces.dlib.weights import import_face_recognition
from serving.faces.face import Box, DetectorModel
from serving.faces.service.pool import FacePool
from tests.faces.pictures import encoded, portrait

pytest.importorskip("dlib")
from serving.faces.dlib.detector import DlibDetector

FULL_SIZE, QUADRUPLE = "upright, full size", "upright, four times the size"
TURNED = "turned by 90 degrees"
MAX_SIDE = 100  # pixels: photos are then as costly as eight times larger ones at the default of 800


def tried(size: tuple[int, int], model: DetectorModel) -> tuple[str, ...]:
    """The passes over a photo of this size that shows no face."""
    return DlibDetector(ImageLimits(), MAX_SIDE).find(encoded(Image.new("RGB", size, "teal")), model).tried


@pytest.mark.parametrize(
    ("size", "model", "runs", "left_out"),
    [
        ((750, 500), "hog", {TURNED, QUADRUPLE, FULL_SIZE}, set()),  # as 24 megapixels
        ((875, 875), "hog", {TURNED, QUADRUPLE}, {FULL_SIZE}),  # as 49 megapixels
        ((120, 120), "cnn", {"upright", "upright, double size"}, {TURNED, QUADRUPLE}),
    ],
)
def test_passes_of_a_photo_keep_to_its_budget_of_pixels(
    size: tuple[int, int], model: DetectorModel, runs: set[str], left_out: set[str]
) -> None:
    passes = set(tried(size, model))
    assert runs <= passes
    assert not left_out & passes


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    width = min(one.right, other.right) - max(one.left, other.left)
    shared = max(0, height) * max(0, width)
    areas = sum((box.bottom - box.top) * (box.right - box.left) for box in (one, other))
    return shared / (areas - shared)


def test_numbers_are_face_recognitions_own(pool: FacePool, photos: Path) -> None:
    """On the same pixels: a photo that is not scaled, decoded by us, who heed its colour profile."""
    face_recognition = import_face_recognition()
    data = (photos / "known" / "lin-manuel_miranda.png").read_bytes()
    pixels = decode_image(data, ImageLimits())
    (location,) = face_recognition.face_locations(pixels, number_of_times_to_upsample=0)
    (expected,) = face_recognition.face_encodings(pixels, [location], model="small")
    (face,) = pool.find(data).faces
    assert (face.box.top, face.box.right, face.box.bottom, face.box.left) == location
    assert pool.encode(face.chip[None])[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_exif_orientation_is_honoured_before_looking(pool: FacePool, photos: Path, orientation: int) -> None:
    upright = portrait(photos)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = pool.find(encoded(stored, "JPEG", exif=exif, quality=95))
    assert found.tried == ("upright",)
    assert (found.width, found.height) == upright.size
    assert overlap(found.faces[0].box, Box(134, 616, 388, 361)) > 0.8


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_photo_is_found_and_boxed_where_it_lies(pool: FacePool, photos: Path, degrees: int) -> None:
    turned = portrait(photos).rotate(degrees, expand=True)
    found = pool.find(encoded(turned))
    (face,) = found.faces
    assert found.tried[-1] == f"turned by {360 - degrees} degrees"
    cut = turned.crop((face.box.left, face.box.top, face.box.right, face.box.bottom)).rotate(-degrees, expand=True)
    upright = pool.find(encoded(portrait(photos))).faces[0].box
    there = portrait(photos).crop((upright.left, upright.top, upright.right, upright.bottom)).resize(cut.size)
    assert np.abs(np.asarray(cut, float) - np.asarray(there, float)).mean() < 20
    assert np.linalg.norm(pool.encode(face.chip[None]) - encoding(pool, portrait(photos))) < 0.2


def encoding(pool: FacePool, image: Image.Image) -> np.ndarray:
    return pool.encode(pool.find(encoded(image)).chips)[0]


def test_boxes_are_in_the_pixels_of_a_large_original(pool: FacePool, photos: Path) -> None:
    large = portrait(photos).resize((3640, 4548))
    found = pool.find(encoded(large, "JPEG", quality=90))
    assert (found.width, found.height) == (3640, 4548)
    assert overlap(found.faces[0].box, Box(4 * 134, 4 * 616, 4 * 388, 4 * 361)) > 0.8


def test_small_face_is_found_at_a_larger_scale(pool: FacePool, photos: Path) -> None:
    frame = Image.new("RGB", (1600, 1200), (90, 110, 130))
    frame.paste(portrait(photos).resize((200, 250)), (900, 500))
    found = pool.find(encoded(frame, "JPEG"))
    assert found.tried[:2] == ("upright", "upright, double size")
    assert len(found.faces) == 1
    assert 900 < found.faces[0].box.left < found.faces[0].box.right < 1100


def test_passer_by_beside_a_large_portrait_is_found(pool: FacePool, photos: Path) -> None:
    frame = Image.new("RGB", (4000, 3000), (90, 110, 130))
    frame.paste(portrait(photos).resize((2400, 3000)), (0, 0))
    little = Image.open(photos / "unknown" / "rose_leslie2.jpg").convert("RGB")
    frame.paste(little.resize((577, 880)), (3200, 1000))
    found = pool.find(encoded(frame, "JPEG"))
    assert found.tried[:2] == ("upright", "upright, double size")
    assert [face.box.left > 3200 for face in found.faces] == [False, True]


def test_little_face_in_a_very_large_photo_is_found_at_full_size(pool: FacePool, photos: Path) -> None:
    frame = Image.new("RGB", (5600, 1400), (90, 110, 130))
    frame.paste(portrait(photos).resize((364, 455)), (4000, 500))
    found = pool.find(encoded(frame, "JPEG"))
    assert len(found.faces) == 1
    assert 4000 < found.faces[0].box.left < 4364


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "LA"])
def test_every_kind_of_pixel_can_be_encoded(pool: FacePool, photos: Path, mode: str) -> None:
    picture = encoded(portrait(photos).convert(mode), "TIFF")
    assert len(pool.find(picture).faces) == 1


def test_not_a_picture_keeps_its_error_across_the_process(pool: FacePool) -> None:
    with pytest.raises(NotAnImage, match="not a picture"):
        pool.find(b"hello")


def test_cnn_finds_the_same_face(pool: FacePool, photos: Path) -> None:
    small = encoded(portrait(photos).resize((364, 455)))
    (by_hog,), (by_cnn,) = pool.find(small).faces, pool.find(small, "cnn", retry=False).faces
    assert overlap(by_hog.box, by_cnn.box) > 0.5
