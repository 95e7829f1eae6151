from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serving.contract.errors import InvalidCard
from tests.cards import COLORS

PHOTO = replace(COLORS.preprocessing, height=4, width=6)
DIGIT = replace(PHOTO, color="gray", height=28, width=28, fit="ink", polarity="dark_background", mean=(0,), std=(1,))


def noise(height: int, width: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_picture_of_the_right_size_passes_unchanged_and_unshared() -> None:
    image = noise(4, 6)
    tensor = PHOTO.apply(image)
    assert np.array_equal(tensor, image)
    assert not np.shares_memory(tensor, image)


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (37, 53)])
def test_every_fit_gives_the_tensors_shape_for_any_picture(fit: Any, size: tuple[int, int]) -> None:
    assert replace(PHOTO, fit=fit).apply(noise(*size)).shape == (4, 6, 3)


def test_crop_resizes_the_short_side_and_takes_the_centre() -> None:
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, 6:10] = 200
    crop = replace(PHOTO, height=4, width=4, fit="crop", resize_short_side=8, interpolation="nearest")
    assert np.array_equal(crop.apply(image), image[2:6, 6:10])


def test_pad_keeps_the_shape_and_fills_with_black() -> None:
    expected = np.zeros((6, 6, 3), np.uint8)
    expected[1:4] = 255  # of three rows that are too many one is above: the odd one goes below
    tensor = replace(PHOTO, height=6, width=6, fit="pad").apply(np.full((3, 6, 3), 255, np.uint8))
    assert np.array_equal(tensor, expected)
    tensor = replace(PHOTO, height=6, width=6, fit="pad").apply(np.full((6, 3, 3), 255, np.uint8))
    assert np.array_equal(tensor, expected.transpose(1, 0, 2))


def test_shrinking_with_antialias_averages_and_without_samples() -> None:
    """Eight columns to two. A column of the result lies over columns 1 and 2, and 5 and 6, of the picture.

    With antialias the triangle is stretched by 4 and cut off at the edge: weights of columns 0 to 5 for the first are
    5, 7, 7, 5, 3, 1 of 28. Without, the two nearest columns have a half each.
    """
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, ::4] = 252
    stripes[:, 1] = 100
    shrunk = replace(PHOTO, height=8, width=2)
    # first: 252 * 5/28 + 100 * 7/28 + 252 * 3/28; second, mirrored (columns 7 to 2): only column 4, with 5/28
    assert shrunk.apply(stripes)[0, :, 0].tolist() == [45 + 25 + 27, 45]
    sampled = replace(shrunk, antialias=False).apply(stripes)
    assert sampled[0, :, 0].tolist() == [50, 0]


def test_gray_keeps_the_value_of_gray_pixels() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2)
    gray = replace(PHOTO, color="gray", height=1, width=256, mean=(0,), std=(1,))
    assert np.array_equal(gray.apply(ramp)[0, :, 0], np.arange(256))


def test_dark_background_inverts_light_paper_only() -> None:
    paper = np.full((4, 6, 3), 250, np.uint8)
    paper[1:3, 2:4] = 10
    dark = replace(PHOTO, polarity="dark_background")
    assert np.array_equal(dark.apply(paper), 255 - paper)
    assert np.array_equal(dark.apply(255 - paper), 255 - paper)


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_a_picture_of_the_models_size_is_inverted_as_any_other(fit: str) -> None:
    paper = np.random.default_rng(0).integers(200, 256, (4, 6, 1)).astype(np.uint8)
    paper[1:3, 2:4] = 10
    dark = replace(PHOTO, color="gray", fit=fit, polarity="dark_background", mean=(0,), std=(1,))
    assert np.array_equal(dark.apply(paper.repeat(3, 2)), 255 - paper)
    assert np.array_equal(dark.apply((255 - paper).repeat(3, 2)), 255 - paper)


def test_float_tensors_are_scaled_as_the_numbers_say() -> None:
    image = np.full((4, 6, 3), (255, 0, 51), np.uint8)
    scaled = replace(
        PHOTO, dtype="float32", scale=1 / 255, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1), channel_order="bgr"
    )
    tensor = scaled.apply(image)
    assert tensor.dtype == np.float32
    np.testing.assert_allclose(tensor[0, 0], [(0.2 - 0.1) / 0.5, (0 - 0.2) / 0.25, 1 - 0.3], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 0}, "at least 1"),
        ({"mean": (0,)}, "3 numbers in mean"),
        ({"std": (0, 1, 1)}, "a zero"),
        ({"scale": 0.5}, "the model scales its input itself"),
        ({"resize_short_side": 8}, "for fit crop"),
        ({"fit": "crop", "resize_short_side": 5}, "smaller than the crop"),
        ({"fit": "ink"}, "wants color gray"),
        ({"interpolation": "lanczos", "antialias": False}, "without antialias"),
    ],
)
def test_numbers_that_cannot_be_carried_out_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidCard, match=message):
        replace(PHOTO, **change)


def drawn(side: int, box: tuple[int, int, int, int], ink: int, paper: int) -> np.ndarray[Any, Any]:
    left, top, right, bottom = box
    image = np.full((side, side, 3), paper, np.uint8)
    image[top:bottom, left:right] = ink
    return image


@pytest.mark.parametrize(("ink", "paper"), [(0, 255), (255, 0), (90, 200), (60, 255)])
@pytest.mark.parametrize("box", [(10, 10, 60, 110), (200, 150, 250, 250), (0, 0, 40, 80)])
def test_ink_frames_a_drawing_wherever_and_however_large_it_is(
    ink: int, paper: int, box: tuple[int, int, int, int]
) -> None:
    tensor = DIGIT.apply(drawn(280, box, ink, paper))[..., 0]
    marks = np.argwhere(tensor > 127)
    assert marks.max(axis=0)[0] - marks.min(axis=0)[0] + 1 in (19, 20, 21)
    np.testing.assert_allclose(marks.mean(axis=0), [13.5, 13.5], atol=1.1)


def test_ink_keeps_a_thin_line_visible() -> None:
    tensor = DIGIT.apply(drawn(560, (280, 40, 283, 520), 0, 255))
    assert tensor.max() > 200


def test_a_blank_page_stays_blank() -> None:
    assert DIGIT.apply(np.full((50, 40, 3), 255, np.uint8)).max() == 0
    assert DIGIT.apply(np.zeros((1, 1, 3), np.uint8)).max() == 0


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box"])
def test_antialiased_resizing_is_pillows(interpolation: str) -> None:
    image = noise(19, 23)
    kind = Image.Resampling[interpolation.upper()]
    expected = np.asarray(Image.fromarray(image).resize((6, 4), kind))
    assert np.array_equal(replace(PHOTO, interpolation=interpolation).apply(image), expected)  # type: ignore[arg-type]
