"""Faces found in photos, by dlib itself."""

import io

import pytest
from PIL import Image

from serving.contract.image_limits import ImageLimits
from serving.faces.face import DetectorModel

pytest.importorskip("dlib")
from serving.faces.dlib.detector import DlibDetector

FULL_SIZE, QUADRUPLE = "upright, full size", "upright, four times the size"
TURNED = "turned by 90 degrees"
MAX_SIDE = 100  # pixels: photos are then as costly as eight times larger ones at the default of 800


def tried(size: tuple[int, int], model: DetectorModel) -> tuple[str, ...]:
    """The passes over a photo of this size that shows no face."""
    file = io.BytesIO()
    Image.new("RGB", size, "teal").save(file, "PNG")
    return DlibDetector(ImageLimits(), MAX_SIDE).find(file.getvalue(), model).tried


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
