import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from serving.contract.errors import InvalidCard
from serving.contract.preprocessing import LARGE_RESULT
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


@pytest.mark.parametrize("fit", ["stretch", "crop", "fill", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (37, 53)])
def test_every_fit_gives_the_tensors_shape_for_any_picture(fit: Any, size: tuple[int, int]) -> None:
    assert replace(PHOTO, fit=fit).apply(noise(*size)).shape == (4, 6, 3)


@pytest.mark.parametrize("side", [49, 98, 103, 161, 196, 427, 640])
def test_the_short_side_is_resized_exactly(side: int) -> None:
    crop = replace(PHOTO, height=256, width=256, fit="crop", resize_short_side=256, interpolation="bilinear")
    picture = Image.effect_noise((side, 3 * side), 80).convert("RGB")
    theirs = picture.resize((256, 768), Image.Resampling.BILINEAR).crop((0, 256, 256, 512))
    assert np.array_equal(crop.pixels(picture), np.asarray(theirs))


def test_fill_keeps_fractions_of_pixels_as_pillow_does() -> None:
    fill = replace(PHOTO, height=20, width=30, fit="fill", interpolation="lanczos")
    picture = Image.effect_noise((97, 53), 80).convert("RGB")
    assert np.array_equal(fill.pixels(picture), np.asarray(ImageOps.fit(picture, (30, 20), Image.Resampling.LANCZOS)))


def test_crop_resizes_the_short_side_and_takes_the_centre() -> None:
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, 6:10] = 200
    crop = replace(PHOTO, height=4, width=4, fit="crop", resize_short_side=8, interpolation="nearest")
    assert np.array_equal(crop.apply(image), image[2:6, 6:10])


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box"])
@pytest.mark.parametrize("size", [(3, 400), (400, 3), (2, 901), (7, 700), (5, 333)])
def test_only_the_window_of_a_strip_is_resized(interpolation: Any, size: tuple[int, int]) -> None:
    """It is what would be cut out of the whole, within 1 of 255: Pillow keeps a window's corners as float32."""
    image = Image.fromarray(noise(*size))
    crop = replace(PHOTO, height=224, width=224, fit="crop", resize_short_side=256, interpolation=interpolation)
    scale = 256 / min(size)
    width, height = int(size[1] * scale), int(size[0] * scale)
    assert width * height > LARGE_RESULT
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    method = Image.Resampling[interpolation.upper()]
    whole = np.asarray(image.resize((width, height), method).crop((left, top, left + 224, top + 224)))
    gap = np.abs(crop.apply(image).astype(int) - whole)
    if interpolation in ("nearest", "box"):  # where a pixel's edge falls is all that rounding can move
        assert (gap > 1).mean() < 0.01
    else:
        assert gap.max() <= 1


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_a_strip_without_antialias_is_sampled_in_its_window_only(interpolation: Any) -> None:
    image = Image.fromarray(noise(3, 400))
    crop = replace(
        PHOTO, height=224, width=224, fit="crop", resize_short_side=256, interpolation=interpolation, antialias=False
    )
    affine = (400 / 34133, 0, 0, 0, 3 / 256, 0)
    method = Image.Resampling[interpolation.upper()]
    whole = image.transform((34133, 256), Image.Transform.AFFINE, affine, method)
    left = round((34133 - 224) / 2)
    gap = np.abs(crop.apply(image).astype(int) - np.asarray(whole.crop((left, 16, left + 224, 240))))
    assert (gap > 1).mean() < 0.01


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad", "ink"])
@pytest.mark.parametrize("size", [(1, 8_000), (8_000, 1), (1, 1_000_000), (1_000_000, 1), (2, 4_000_000)])
@pytest.mark.parametrize("antialias", [True, False])
def test_a_strip_costs_its_pixels_and_the_models(fit: Any, size: tuple[int, int], antialias: bool) -> None:
    """A crop of 1 x 8,000 took 4 to 12 s and 2 GB, one of 1 x 1,000,000 was a MemoryError."""
    picture = Image.new("L", size, 77).convert("RGB")
    made = DIGIT if fit == "ink" else replace(PHOTO, height=224, width=224, fit=fit, antialias=antialias)
    if fit == "crop":
        made = replace(made, resize_short_side=256)
    started = time.process_time()
    pixels = made.apply(picture)
    assert time.process_time() - started < 2
    assert pixels.shape == (made.height, made.width, made.channels)
    if fit in ("stretch", "crop"):
        assert (pixels == 77).all()


def test_a_tall_strip_is_stretched_as_a_narrower_one_is() -> None:
    """Past the bound the rows are shrunk first: as before, within 1 of 255."""
    image = Image.fromarray(noise(30_000, 2))
    stretched = replace(PHOTO, height=224, width=224).apply(image)
    whole = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR))
    assert np.abs(stretched.astype(int) - whole).max() <= 1


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
