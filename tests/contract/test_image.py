import functools
import io
import struct
import zlib
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import serving.contract.image as image_module
from serving.contract.errors import (
    BadImage,
    EmptyImage,
    ImageTooLarge,
    NotAnImage,
    TooManyPixels,
    TruncatedImage,
    UnknownPixelRange,
)
from serving.contract.image import decode_image
from serving.contract.image_limits import ImageLimits
from tests.contract.icc import DISPLAY_P3, in_display_p3, rgb_profile
from tests.contract.orientation import stored_as

LIMITS = ImageLimits()
in_heic = pytest.mark.skipif(not find_spec("pillow_heif"), reason="the extra `heic` is not installed")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(width: int = 40, height: int = 30) -> Image.Image:
    red = np.linspace(0, 255, width, dtype=np.uint8)[None].repeat(height, 0)
    green = np.linspace(0, 255, height, dtype=np.uint8)[:, None].repeat(width, 1)
    return Image.fromarray(np.dstack([red, green, np.full_like(red, 90)]))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG", "AVIF", "HEIF", "PPM"])
def test_every_common_format_decodes_to_rgb(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    if kind == "HEIF":
        pytest.importorskip("pillow_heif", reason="the extra `heic` is not installed")
    pixels = decode_image(encoded(gradient(), kind, **options), LIMITS)
    assert pixels.shape == (30, 40, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.asarray(gradient())).mean() < 12


def test_lossless_formats_keep_every_pixel() -> None:
    assert np.array_equal(decode_image(encoded(gradient(), "PNG"), LIMITS), np.asarray(gradient()))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_portrait_photo_is_rotated_by_exif(orientation: int) -> None:
    upright = np.zeros((20, 10, 3), np.uint8)
    upright[:5, :5] = 255  # white in the upper left corner, whichever way the camera was held
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(stored_as(upright, orientation))
    assert np.array_equal(decode_image(encoded(image, "PNG", exif=exif), LIMITS), upright)


def test_transparency_is_composited_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 128))
    assert decode_image(encoded(image, "PNG"), LIMITS).tolist() == [[[255, 255, 255], [255, 127, 127]]]


def test_palette_with_transparency_is_composited_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    assert decode_image(encoded(image, "PNG", transparency=0), LIMITS).tolist() == [[[255] * 3, [40, 50, 60]]]


def test_sixteen_bit_gray_is_scaled_not_clipped() -> None:
    image = Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16))
    assert decode_image(encoded(image, "PNG"), LIMITS)[0, :, 0].tolist() == [0, 1, 128, 255]


def in_float(values: Any) -> bytes:
    return encoded(Image.fromarray(np.asarray(values, np.float32)), "TIFF")


def test_floats_from_zero_to_one_are_stretched() -> None:
    assert decode_image(in_float([[0, 0.2, 0.5, 1]]), LIMITS)[0, :, 0].tolist() == [0, 51, 128, 255]


def test_floats_from_zero_to_255_are_rounded() -> None:
    assert decode_image(in_float([[0, 1.4, 127.6, 255]]), LIMITS)[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    "values",
    [[[-0.1, 1]], [[0, 1.0001]], [[0, 2]], [[0, 255.5]], [[0, np.nan]], [[np.inf, 0]], [[-np.inf, 0]], [[1e9, 0]]],
)
def test_floats_of_an_unknown_range_say_what_they_are(values: Any) -> None:
    with pytest.raises(UnknownPixelRange, match="32-bit numbers") as caught:
        decode_image(in_float(values), LIMITS)
    assert "0-1 or to 0-255" in caught.value.hint


def in_int(values: Any) -> bytes:
    return encoded(Image.fromarray(np.asarray(values, np.int32)), "TIFF")


def test_whole_numbers_of_32_bits_up_to_255_are_gray_as_they_are() -> None:
    assert decode_image(in_int([[0, 1, 128, 255]]), LIMITS)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_whole_numbers_of_32_bits_up_to_65535_are_scaled_as_those_of_16_bits() -> None:
    assert decode_image(in_int([[0, 257, 32896, 65535]]), LIMITS)[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("values", [[[-1, 255]], [[0, 65536]], [[0, 2**31 - 1]]])
def test_whole_numbers_of_an_unknown_range_say_what_they_are(values: Any) -> None:
    with pytest.raises(UnknownPixelRange, match="which of them is white cannot be known"):
        decode_image(in_int(values), LIMITS)


def test_numbers_of_a_large_picture_are_scaled_by_all_of_it() -> None:
    """Larger than a strip: its first rows alone would be taken for 0-1."""
    values = np.zeros((1000, 600), np.float32)
    values[0], values[-1] = 1, 255
    pixels = decode_image(in_float(values), LIMITS)
    assert (pixels[0, 0, 0], pixels[500, 0, 0], pixels[-1, 0, 0]) == (1, 0, 255)
    values[-1, -1] = np.nan
    with pytest.raises(UnknownPixelRange):
        decode_image(in_float(values), LIMITS)


def test_a_bitmap_whose_alpha_was_never_written_is_opaque() -> None:
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    assert decode_image(with_alpha_masks(image), LIMITS).tolist() == [[[10, 20, 30]] * 2]
    image.putpixel((1, 0), (10, 20, 30, 128))  # and this one was
    assert decode_image(with_alpha_masks(image), LIMITS).tolist() == [[[255, 255, 255], [132, 137, 142]]]


def with_alpha_masks(image: Image.Image) -> bytes:
    """A bitmap with BITMAPV4HEADER, whose masks say where alpha stands. image: RGBA."""
    pixels = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).tobytes("raw", "BGRA")
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    info = struct.pack("<IiiHHIIiiII", 108, *image.size, 1, 32, 3, len(pixels), 0, 0, 0, 0) + masks + bytes(52)
    return b"BM" + struct.pack("<IHHI", 122 + len(pixels), 0, 0, 122) + info + pixels


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_large_transparent_picture_is_composited_as_a_small_one(mode: str) -> None:
    """Pictures larger than a strip are composited a strip at a time."""
    random = np.random.default_rng(0)
    layers = Image.fromarray(random.integers(0, 256, (700, 500, 4), dtype=np.uint8))
    image = layers if mode == "RGBA" else layers.convert("LA") if mode == "LA" else layers.convert("RGB").convert("P")
    options = {"transparency": 7} if mode == "P" else {}
    pixels = decode_image(encoded(image, "PNG", **options), LIMITS)
    part = decode_image(encoded(image.crop((0, 500, 500, 620)), "PNG", **options), LIMITS)
    assert np.array_equal(pixels[500:620], part)


@pytest.mark.parametrize("place", ["exif", "xmp", "profile"])
def test_an_orientation_is_found_wherever_pillow_finds_it(place: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description before it"
    image = gradient()
    if place == "exif":
        data = encoded(image, "PNG", exif=exif)
    elif place == "xmp":
        data = encoded(image, "WEBP", lossless=True, xmp=b'<rdf:Description tiff:Orientation="6"/>')
    else:
        text = PngInfo()
        text.add_text("Raw profile type exif", f"\nexif\n 99\n{exif.tobytes().hex()}\n")
        data = encoded(image, "PNG", pnginfo=text)
    assert np.array_equal(decode_image(data, LIMITS), np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_exif_does_not_know_leaves_the_picture(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode_image(encoded(gradient(), "PNG", exif=exif), LIMITS), np.asarray(gradient()))


@given(st.binary(max_size=80), st.sampled_from([b"", b"Exif\0\0II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_damaged_exif_leaves_a_picture_or_our_error(blob: bytes, start: bytes) -> None:
    data = encoded(gradient(), "PNG", exif=start + blob)
    try:
        assert sorted(decode_image(data, LIMITS).shape) == [3, 30, 40]
    except BadImage:
        return


def test_sixteen_bit_rgb_decodes() -> None:
    rows = b"\0" + struct.pack(">6H", 65535, 0, 32896, 0, 65535, 257)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert decode_image(data, LIMITS).tolist() == [[[255, 0, 128], [0, 255, 1]]]


def test_cmyk_decodes_to_rgb() -> None:
    pixels = decode_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95), LIMITS)
    assert np.abs(pixels.astype(int) - [255, 0, 0]).max() < 12


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(data, LIMITS)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("data", [b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n", bytes(1000), b"<svg/>"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(NotAnImage):
        decode_image(data, LIMITS)


def test_an_empty_picture_is_refused_as_empty() -> None:
    with pytest.raises(EmptyImage):
        decode_image(b"", LIMITS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF"])
def test_a_picture_that_is_cut_off_is_refused(kind: str) -> None:
    data = encoded(gradient(200, 200), kind)
    for share in (0.02, 0.3, 0.66):
        with pytest.raises(TruncatedImage):
            decode_image(data[: int(len(data) * share)], LIMITS)


def test_a_picture_with_too_many_bytes_names_the_setting() -> None:
    with pytest.raises(ImageTooLarge, match=r"101 bytes; the limit is 100 \(SIGHTLINE_MAX_IMAGE_BYTES\)"):
        decode_image(bytes(101), ImageLimits(max_image_bytes=100))


def test_too_many_pixels_are_refused_before_decoding() -> None:
    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    with pytest.raises(TooManyPixels, match=r"100,000,000.*SIGHTLINE_MAX_IMAGE_PIXELS"):
        decode_image(data + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")), LIMITS)


def test_a_decompression_bomb_is_refused() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    with pytest.raises(TooManyPixels):
        decode_image(data + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")), LIMITS)


@in_heic
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_photo_is_upright(orientation: int) -> None:
    corner = np.zeros((64, 32, 3), np.uint8)
    corner[:16, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(stored_as(corner, orientation))
    stored.info["exif"] = exif.tobytes()  # there the encoder looks for what it writes as HEIC's own rotation
    data = encoded(stored, "HEIF", quality=95)
    assert (b"irot" in data or b"imir" in data) == (orientation > 1)
    pixels = decode_image(data, LIMITS)
    assert pixels.shape == corner.shape
    assert np.abs(pixels.astype(int) - corner).mean() < 5


@in_heic
def test_a_heic_photo_in_display_p3_is_brought_to_srgb() -> None:
    image = Image.new("RGB", (64, 64), tuple(in_display_p3(np.array([40, 200, 40])).tolist()))
    pixels = decode_image(encoded(image, "HEIF", quality=95, icc_profile=rgb_profile(DISPLAY_P3)), LIMITS)
    assert np.abs(pixels.astype(int) - [40, 200, 40]).max() <= 6


@in_heic
def test_too_many_heic_pixels_are_refused_before_decoding() -> None:
    data = bytearray(encoded(gradient(128, 64), "HEIF"))  # sides that need no cropping after decoding
    at = data.index(b"ispe") + 8  # ISO/IEC 23008-12, 6.5.3: flags, then width and height
    data[at : at + 8] = struct.pack(">II", 10_000, 10_000)
    with pytest.raises(TooManyPixels, match=r"100,000,000.*SIGHTLINE_MAX_IMAGE_PIXELS"):
        decode_image(bytes(data), LIMITS)
    data[at : at + 8] = struct.pack(">II", 4, 4)  # and one whose header promises less than there is
    with pytest.raises(TruncatedImage):
        decode_image(bytes(data), LIMITS)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_a_cut_off_heic_or_avif_is_refused(kind: str) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif", reason="the extra `heic` is not installed")
    data = encoded(gradient(200, 200), kind)
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(TruncatedImage):
            decode_image(data[: int(len(data) * share)], LIMITS)


def test_without_the_extra_a_heic_picture_is_named_as_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_module, "FORMATS", [kind for kind in image_module.FORMATS if kind != "HEIF"])
    with pytest.raises(NotAnImage, match="HEIC") as caught:
        decode_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", LIMITS)
    assert "`heic`" in caught.value.hint


@given(st.binary(max_size=300))
def test_random_bytes_are_a_picture_or_our_error(data: bytes) -> None:
    try:
        pixels = decode_image(data, LIMITS)
    except BadImage:
        return
    assert pixels.ndim == 3


KINDS = ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", *(["HEIF"] if find_spec("pillow_heif") else [])]


@functools.cache
def sample(kind: str) -> bytes:
    return encoded(gradient(), kind)


@settings(deadline=None)  # what decodes HEIC looks about itself at first
@given(st.sampled_from(KINDS), st.integers(0, 2000), st.integers(1, 255))
def test_a_flipped_byte_gives_a_picture_or_our_error(kind: str, position: int, flip: int) -> None:
    data = bytearray(sample(kind))
    data[position % len(data)] ^= flip
    try:
        decode_image(bytes(data), LIMITS)
    except BadImage:
        return
