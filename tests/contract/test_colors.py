import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from serving.contract.image import decode_image, decode_photo
from serving.contract.image_limits import ImageLimits
from tests.contract.icc import (
    DISPLAY_P3,
    SRGB,
    cmyk_profile,
    encoded,
    gamma_curve,
    gray_profile,
    in_display_p3,
    linear,
    rgb_profile,
)

LIMITS = ImageLimits()
P3 = rgb_profile(DISPLAY_P3)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colors() -> Any:
    """Every sixteenth colour of sRGB. uint8 (64, 64, 3)"""
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(64, 64, 3)


def gap(one: Any, other: Any) -> int:
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other)).max())


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_a_photo_in_display_p3_looks_as_its_twin_in_srgb(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    in_p3 = Image.fromarray(in_display_p3(colors()))
    assert gap(in_p3, colors()) > 50  # read as if they were sRGB's the colours are wrong
    # an eighth of a level of rounding grows where the curve is steep: in the dark and next to the gamut's edge
    pixels = decode_image(saved(in_p3, kind, icc_profile=P3, **options), LIMITS)
    assert gap(pixels, colors()) <= 12
    assert np.abs(pixels.astype(int) - colors()).mean() < 0.7


def test_a_jpeg_in_display_p3_looks_as_its_twin_in_srgb_when_it_is_decoded_smaller_too() -> None:
    middle = Image.fromarray(60 + colors() // 2)  # what JPEG takes away shows least in the middle tones
    smooth = np.asarray(middle.resize((8, 8), Image.Resampling.BOX).resize((640, 640)))
    data = saved(Image.fromarray(in_display_p3(smooth)), "JPEG", quality=95, icc_profile=P3)
    small = decode_photo(data, LIMITS, 80)
    twin = decode_photo(saved(Image.fromarray(smooth), "JPEG", quality=95), LIMITS, 80)
    assert (small.width, small.height) == (640, 640)
    assert gap(small.pixels, twin.pixels) <= 6
    assert gap(decode_image(data, LIMITS), smooth) <= 6


@pytest.mark.parametrize(
    "profile",
    [None, rgb_profile(SRGB), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()],
    ids=["none", "by hand", "Little CMS's"],
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_pictures_without_a_profile_or_with_srgbs_keep_every_pixel(profile: bytes | None, mode: str) -> None:
    image = Image.fromarray(colors()).convert(mode)
    plain = np.asarray(image.convert("RGB"))
    assert np.array_equal(decode_image(saved(image, icc_profile=profile), LIMITS), plain)


def test_gray_with_a_gamma_of_its_own_is_brought_to_srgbs() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None]
    expected = encoded((np.arange(256) / 255) ** 1.8)
    pixels = decode_image(saved(Image.fromarray(ramp), icc_profile=gray_profile(1.8)), LIMITS)
    assert gap(pixels[0], np.repeat(expected[:, None], 3, 1)) <= 1


def test_gray_with_a_profile_of_three_channels_is_brought_to_srgbs() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None]
    profile = rgb_profile(SRGB, gamma_curve(1.8))
    expected = encoded((np.arange(256) / 255) ** 1.8)
    pixels = decode_image(saved(Image.fromarray(ramp), icc_profile=profile), LIMITS)
    assert gap(pixels[0], np.repeat(expected[:, None], 3, 1)) <= 1


def test_sixteen_bit_gray_with_a_gamma_is_brought_to_srgbs() -> None:
    image = Image.fromarray(np.array([[0, 32896, 65535]], np.uint16))
    pixels = decode_image(saved(image, icc_profile=gray_profile(1.0)), LIMITS)
    assert pixels[0, :, 0].tolist() == [0, int(encoded(np.array(128 / 255))), 255]


def test_cmyk_is_converted_by_its_press() -> None:
    """A press whose inks are grays: Pillow's own conversion would make this cyan."""
    corners = {(c, m, y, k): 255 - 60 * (c + m + y + k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)}
    data = saved(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "TIFF", icc_profile=cmyk_profile(corners))
    lightness = 195 / 255 * 100
    light = ((lightness + 16) / 116) ** 3  # CIE 1976 L*, above 8
    assert gap(decode_image(data, LIMITS), np.full((8, 8, 3), encoded(np.array(light)))) <= 1


def test_transparency_stays_where_colours_are_converted() -> None:
    image = Image.fromarray(in_display_p3(colors())).convert("RGBA")
    image.putalpha(Image.fromarray(np.repeat(np.array([0, 255], np.uint8), 32)[None].repeat(64, 0)))
    pixels = decode_image(saved(image, icc_profile=P3), LIMITS)
    assert (pixels[:, :32] == 255).all()
    assert gap(pixels[:, 32:], colors()[:, 32:]) <= 12


def test_gray_with_alpha_is_converted() -> None:
    image = Image.fromarray(np.array([[128, 128]], np.uint8)).convert("LA")
    image.putalpha(Image.fromarray(np.array([[0, 255]], np.uint8)))
    pixels = decode_image(saved(image, icc_profile=gray_profile(1.0)), LIMITS)
    assert pixels[0, :, 1].tolist() == [255, int(encoded(np.array(128 / 255)))]


def test_a_palette_in_display_p3_is_converted() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*in_display_p3(np.array([200, 40, 40])), *in_display_p3(np.array([40, 200, 40]))])
    image.putdata([0, 1])
    pixels = decode_image(saved(image, icc_profile=P3), LIMITS)
    assert gap(pixels[0], [[200, 40, 40], [40, 200, 40]]) <= 2


def test_lab_is_converted() -> None:
    lab = Image.merge("LAB", [Image.new("L", (2, 2), value) for value in (128, 128, 128)])  # L* 50.2, a* and b* 0
    half = ((50.2 + 16) / 116) ** 3
    assert gap(decode_image(saved(lab, "TIFF"), LIMITS), np.full((2, 2, 3), encoded(np.array(half)))) <= 2


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        ("RGB", b"no profile at all"),
        ("RGB", P3[:200]),
        ("RGB", P3.replace(b"rXYZ", b"xXYZ")),
        ("RGB", gray_profile(1.0)),
        ("RGB", P3.replace(b"RGB ", b"Luv ")),
        ("RGB", P3 + bytes(4_000_000)),
        ("L", P3.replace(b"RGB ", b"CMYK")),
        ("CMYK", P3),
    ],
)
def test_a_profile_that_is_of_no_use_leaves_the_pixels_as_they_are(mode: str, profile: bytes) -> None:
    image = Image.fromarray(colors()).convert(mode)
    plain = np.asarray(image.convert("RGB"))
    assert np.array_equal(decode_image(saved(image, "TIFF", icc_profile=profile), LIMITS), plain)


@given(st.data())
def test_a_damaged_profile_gives_a_picture_or_our_error(data: st.DataObject) -> None:
    corners = dict.fromkeys(np.ndindex(2, 2, 2, 2), 128)
    mode, profile = data.draw(
        st.sampled_from([("RGB", P3), ("L", gray_profile(2.2)), ("CMYK", cmyk_profile(corners))]), label="profile"
    )
    broken = bytearray(profile)
    for position in data.draw(st.lists(st.integers(0, 400), min_size=1, max_size=6), label="positions"):
        broken[position % len(broken)] ^= data.draw(st.integers(1, 255), label="flip")
    picture = saved(Image.new(mode, (3, 2)), "TIFF", icc_profile=bytes(broken))
    assert decode_image(picture, LIMITS).shape == (2, 3, 3)


def test_linear_undoes_encoded() -> None:
    ramp = np.arange(256)
    assert np.array_equal(encoded(linear(ramp)), ramp)
