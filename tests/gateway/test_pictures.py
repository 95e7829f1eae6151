"""Every kind of picture that people send, as real bytes, to the label. The model tells the share of each channel."""

import base64
import io
import struct
import zlib
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image

from tests.contract.icc import DISPLAY_P3, in_display_p3, rgb_profile
from tests.contract.orientation import stored_as

ORANGE = (200, 100, 50)  # 4 : 2 : 1
SHARES = (4 / 7, 2 / 7, 1 / 7)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def orange(mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (64, 64), ORANGE).convert(mode)


def on_white() -> bytes:
    """Half opaque: on white it is what ORANGE is."""
    half = tuple(2 * value - 255 for value in (200, 178, 153))
    return saved(Image.new("RGBA", (64, 64), (*half, 128)), "PNG")


def sixteen_bits() -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = b"\0" + struct.pack(">3H", *(value * 257 for value in ORANGE)) * 4
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 4)) + chunk(b"IEND", b"")


def in_p3() -> bytes:
    image = Image.new("RGB", (64, 64), tuple(in_display_p3(np.array(ORANGE)).tolist()))
    return saved(image, "JPEG", quality=95, icc_profile=rgb_profile(DISPLAY_P3))


def animated(kind: str) -> bytes:
    frames = [orange(), Image.new("RGB", (64, 64), "blue")]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], **({} if kind == "GIF" else {"quality": 95}))


def heic() -> bytes:
    pytest.importorskip("pillow_heif", reason="the extra `heic` is not installed")
    return saved(orange(), "HEIF", quality=95)


PICTURES = {
    "jpeg": lambda: saved(orange(), "JPEG", quality=95),
    "progressive jpeg": lambda: saved(orange(), "JPEG", quality=95, progressive=True),
    "cmyk jpeg": lambda: saved(orange("CMYK"), "JPEG", quality=95),
    "jpeg in display p3": in_p3,
    "png": lambda: saved(orange(), "PNG"),
    "palette png": lambda: saved(orange("P"), "PNG"),
    "16-bit png": sixteen_bits,
    "png with alpha": lambda: saved(orange("RGBA"), "PNG"),
    "gif": lambda: saved(orange(), "GIF"),
    "animated gif": lambda: animated("GIF"),
    "webp": lambda: saved(orange(), "WEBP", quality=95),
    "animated webp": lambda: animated("WEBP"),
    "animated png": lambda: saved(orange(), "PNG", save_all=True, append_images=[Image.new("RGB", (64, 64), "blue")]),
    "bmp": lambda: saved(orange(), "BMP"),
    "tiff": lambda: saved(orange(), "TIFF"),
    "tiff of pages": lambda: saved(orange(), "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9), "blue")]),
    "avif": lambda: saved(orange(), "AVIF", quality=95),
    "heic": heic,
    "jpeg 2000": lambda: saved(orange(), "JPEG2000"),
    "ppm": lambda: saved(orange(), "PPM"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_answered_by_what_it_shows(client: FlaskClient, name: str) -> None:
    response = client.post("/predict/colors?probabilities=all", data=PICTURES[name](), content_type="image/png")
    assert response.status_code == 200, response.text
    assert response.get_json()["predictions"][0]["probabilities"] == pytest.approx(SHARES, abs=0.02)


def test_transparency_is_seen_on_white(client: FlaskClient) -> None:
    response = client.post("/predict/colors?probabilities=all", data=on_white(), content_type="image/png")
    expected = np.array([200, 178, 153]) / (200 + 178 + 153)
    assert response.get_json()["predictions"][0]["probabilities"] == pytest.approx(expected, abs=0.01)


def seen(client: FlaskClient, data: bytes) -> Any:
    """Return the model's input, uint8 (2, 2, 3)."""
    response = client.post("/predict/colors?input=png", data=data, content_type="image/jpeg")
    (row,) = response.get_json()["predictions"]
    assert set(row) == {"name", "label", "id", "score", "top", "input"}
    head, _, text = row["input"].partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_model_sees_a_photo_upright(client: FlaskClient, orientation: int) -> None:
    quarters = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [120, 120, 120]]], np.uint8)
    upright = quarters.repeat(40, 0).repeat(30, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(stored_as(upright, orientation)), "JPEG", quality=95, exif=exif)
    assert np.abs(seen(client, data).astype(int) - quarters).max() <= 80  # bilinear: an eighth or so of each neighbour


def test_the_model_of_numbers_with_fractions_is_shown_as_a_picture(client: FlaskClient, predictor: Any) -> None:
    card = predictor.card
    changed = replace(card.preprocessing, dtype="float32", scale=1 / 127.5, mean=(1, 1, 1))
    predictor.card = replace(card, preprocessing=changed, input=replace(card.input, dtype="float32"))
    assert (seen(client, saved(orange(), "PNG")) == ORANGE).all()


def test_a_bad_picture_shows_nothing(client: FlaskClient) -> None:
    files = [(io.BytesIO(data), "x") for data in (b"no picture", saved(orange("L"), "PNG"))]
    rows = client.post("/predict/colors?input=png", data={"image": files}).get_json()["predictions"]
    assert ["input" in row for row in rows] == [False, True]


@pytest.mark.parametrize("kind", ["PNG", "AVIF", *(["HEIF"] if find_spec("pillow_heif") else [])])
def test_too_many_pixels_are_refused_whatever_the_format(client: FlaskClient, kind: str) -> None:
    data = saved(Image.new("RGB", (128, 128)), kind)  # 16,384 pixels; the limit of these tests is 10,000
    response = client.post("/predict/colors", data=data, content_type="image/png")
    assert (response.status_code, response.get_json()["code"]) == (413, "too_many_pixels")


def test_hint_lists_the_formats_that_this_installation_reads(client: FlaskClient) -> None:
    response = client.post("/predict/colors", data=b"no picture", content_type="image/png")
    body = response.get_json()
    assert body["code"] == "not_an_image"
    formats = body["hint"].removesuffix(".").partition("reads ")[2].split(", ")
    assert {"JPEG", "JPEG 2000", "PNG", "PPM", "WebP"} < set(formats)
    assert ("HEIC" in formats) == (find_spec("pillow_heif") is not None)
