"""Framing a drawing as MNIST frames its digits, measured on MNIST itself and on its digits drawn on paper."""

import gzip
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from serving.contract.image import Pixels
from serving.contract.ink import WORK_SIDE, _spread, frame_ink, has_light_ground
from serving.contract.preprocessing import Preprocessing

DIGITS = Preprocessing(
    color="gray",
    height=28,
    width=28,
    fit="ink",
    resize_short_side=None,
    interpolation="bilinear",
    antialias=True,
    polarity="dark_background",
    dtype="uint8",
    scale=1.0,
    mean=(0.0,),
    std=(1.0,),
    channel_order="rgb",
)


@pytest.fixture(scope="module")
def mnist() -> Pixels:
    """The first thousand pictures of MNIST's test split: uint8 (n, 28, 28)."""
    root = os.environ.get("SIGHTLINE_DATA")
    path = Path(root or "") / "digits" / "t10k-images-idx3-ubyte.gz"
    if not root or not path.is_file():
        pytest.skip("SIGHTLINE_DATA has no digits/")
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28)[:1000]


def rgb(gray: Pixels) -> Pixels:
    return np.stack([gray] * 3, axis=-1)


def on_paper(digit: Pixels, side: int, corner: tuple[int, int], ink: int, paper: Pixels) -> Pixels:
    """The digit, `side` pixels large, drawn in `ink` on a sheet. paper: uint8 (H, W). Returns uint8 (H, W, 3)."""
    large = np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)) / 255
    sheet = paper.astype(np.float64)
    top, left = corner
    part = sheet[top : top + side, left : left + side]
    part[:] = part * (1 - large) + ink * large
    return rgb(sheet.round().clip(0, 255).astype(np.uint8))


def test_mnists_own_pictures_pass_unchanged(mnist: Pixels) -> None:
    framed = np.stack([DIGITS.apply(rgb(picture))[..., 0] for picture in mnist])
    assert (framed == mnist).all(axis=(1, 2)).mean() >= 0.98
    assert np.abs(framed.astype(int) - mnist).mean(axis=(1, 2)).max() < 5  # of 255


def test_inverted_pictures_come_back_as_mnists(mnist: Pixels) -> None:
    framed = np.stack([DIGITS.apply(rgb(255 - picture))[..., 0] for picture in mnist])
    assert (framed == mnist).all(axis=(1, 2)).mean() >= 0.98
    assert np.abs(framed.astype(int) - mnist).mean(axis=(1, 2)).max() < 5  # of 255


@pytest.mark.parametrize("shadow", [0, 90])
def test_a_drawing_on_a_shaded_sheet_is_framed_nearly_as_mnist_has_it(mnist: Pixels, shadow: int) -> None:
    paper = np.broadcast_to(np.linspace(235, 235 - shadow, 640), (480, 640)).astype(np.uint8)
    differences = []
    for picture in mnist[:100]:
        tensor = DIGITS.apply(on_paper(picture, 140, (300, 20), 60, paper))[..., 0]
        differences.append(np.abs(tensor.astype(int) - picture).mean())
    assert np.median(differences) < 12  # of 255; two different digits differ by 40


def test_a_speck_far_away_does_not_shrink_the_drawing(mnist: Pixels) -> None:
    sheet = on_paper(mnist[0], 140, (20, 20), 0, np.full((300, 300), 250, np.uint8))
    spotted = sheet.copy()
    spotted[290:294, 290:294] = 0
    assert np.array_equal(DIGITS.apply(spotted), DIGITS.apply(sheet))


def test_a_page_in_a_dim_room_is_light_paper(mnist: Pixels) -> None:
    bright = on_paper(mnist[0], 140, (40, 40), 30, np.full((300, 300), 240, np.uint8))
    dim = on_paper(mnist[0], 140, (40, 40), 20, np.full((300, 300), 100, np.uint8))
    assert np.abs(DIGITS.apply(dim).astype(int) - DIGITS.apply(bright)).mean() < 4


def test_grain_alone_is_a_blank_page() -> None:
    random = np.random.default_rng(0)
    paper = random.normal(200, 1.5, (300, 300)).clip(0, 255).astype(np.uint8)
    assert not DIGITS.apply(rgb(paper)).any()


@pytest.mark.parametrize("size", [(1, 1), (2, 40), (40, 2), (28, 28), (5, 5), (29, 28), (1, 700)])
def test_any_size_and_any_content_gives_a_frame(size: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    for content in (np.zeros(size), np.full(size, 255), random.integers(0, 256, size)):
        assert frame_ink(Image.fromarray(content.astype(np.uint8)), 28, 28).size == (28, 28)


def test_the_frame_has_the_size_that_is_asked_for(mnist: Pixels) -> None:
    assert replace(DIGITS, height=32, width=40).apply(rgb(mnist[0])).shape == (32, 40, 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (7, 5), (48, 31)])
@pytest.mark.parametrize("margin", [1, 2, 3, 8, 19])
def test_a_dilation_is_pillows_maximum_filter(size: tuple[int, int], margin: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    expected = np.asarray(Image.fromarray(values).filter(ImageFilter.MaxFilter(2 * margin + 1)))
    assert np.array_equal(_spread(values, margin), expected)


def test_thickening_a_thin_line_takes_no_longer_than_its_photo() -> None:
    """Pillow's filter took 230 ms for the widest margin, and held the interpreter meanwhile."""
    drawing = np.zeros((WORK_SIDE, WORK_SIDE), np.uint8)
    drawing[:, 200] = 255
    started = time.process_time()
    for _ in range(10):
        _spread(drawing, 19)
    assert (time.process_time() - started) / 10 < 0.05


def test_the_ground_of_a_large_picture_is_that_of_its_border() -> None:
    """Larger than the bound up to which an array of all of it is made."""
    sheet = np.full((400, 300), 120, np.uint8)
    sheet[100:300, 100:200] = 0
    assert has_light_ground(Image.fromarray(sheet))
    assert not has_light_ground(Image.fromarray(255 - sheet))
    sheet[1:-1, 1:-1] = 255  # only the outermost pixels are ground
    assert not has_light_ground(Image.fromarray(sheet))
