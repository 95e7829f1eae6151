"""Sizes and costs read from headers, and files that would keep a decoder busy out of proportion to their pixels."""

import ctypes
import io
import os
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from serving.contract.errors import BadImage, CostlyImage, NotAnImage, TooManyPixels, TruncatedImage
from serving.contract.headers import MAX_SCANS, Header, read_header
from serving.contract.image import FORMATS, HEIC, decode_image, probe
from serving.contract.image_limits import ImageLimits

LIMITS = ImageLimits()
FULL = LIMITS.max_image_bytes - 4_000  # bytes of a file that is as large as is allowed
NOISE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(mode: str = "RGB") -> Image.Image:
    image = Image.fromarray(NOISE).convert(mode)
    if mode == "RGBA":
        image.putalpha(image.getchannel("R"))
    return image


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *before: bytes, pixels: bytes = b"", after: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + body + after + chunk(b"IEND")


def lossless_webp(width: int, height: int) -> bytes:
    """The header of a lossless WebP of one colour (RFC 9649, 3.4), and too little after it."""
    packed = (width - 1) | (height - 1) << 14
    body = b"WEBPVP8L" + struct.pack("<IBI", 18, 0x2F, packed) + bytes(13)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def with_scans(count: int) -> bytes:
    """A progressive JPEG in gray whose last scan stands there several times, `count` scans in all."""
    data = saved(Image.new("L", (64, 64)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * (count - data.count(b"\xff\xda") + 1) + data[-2:]


def with_segments(segments: bytes) -> bytes:
    data = saved(noise(), "JPEG")
    return data[:2] + segments + data[2:]


def tiff(*tags: tuple[int, int, int, int], rest: bytes = b"") -> bytes:
    """A little-endian TIFF: (tag, type, count, value) each, then `rest`."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + rest


def gray_tiff(width: int, height: int, *more: tuple[int, int, int, int], rest: bytes = b"") -> bytes:
    tags = ((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1))
    return tiff(*tags, *more, rest=rest)


def run_length_bmp(width: int, height: int, body: bytes) -> bytes:
    offset = 54 + 1024
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    palette = b"".join(bytes([index, 0, index, 0]) for index in range(256))
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + info + palette + body


def with_comments(comments: bytes) -> bytes:
    data = saved(noise("L"), "GIF")
    first = 13 + (3 << (data[10] & 7) + 1)
    return data[:first] + comments + data[first:]


SAMPLES: dict[str, tuple[bytes, int]] = {
    "JPEG": (saved(noise(), "JPEG"), 24),
    "gray JPEG": (saved(noise("L"), "JPEG"), 8),
    "CMYK JPEG": (saved(noise("CMYK"), "JPEG"), 32),
    "MPO": (saved(noise(), "MPO", save_all=True, append_images=[noise()]), 24),
    "PNG": (saved(noise(), "PNG"), 24),
    "PNG with alpha": (saved(noise("RGBA"), "PNG"), 32),
    "animated PNG": (saved(noise(), "PNG", save_all=True, append_images=[noise().rotate(180)]), 24),
    "GIF": (saved(noise(), "GIF"), 8),
    "BMP": (saved(noise(), "BMP"), 24),
    "DIB": (saved(noise(), "DIB"), 24),
    "lossy WebP": (saved(noise(), "WEBP"), 24),
    "lossless WebP": (saved(noise(), "WEBP", lossless=True), 24),
    "WebP with alpha": (saved(noise("RGBA"), "WEBP"), 32),
    "animated WebP": (saved(noise(), "WEBP", save_all=True, append_images=[noise().rotate(180)]), 24),
    "TIFF": (saved(noise(), "TIFF"), 24),
    "compressed TIFF": (saved(noise(), "TIFF", compression="tiff_lzw"), 24),
    "BigTIFF": (saved(noise(), "TIFF", big_tiff=True), 24),
    "JPEG 2000": (saved(noise(), "JPEG2000"), 24),
    "JPEG 2000 stream": (saved(noise(), "JPEG2000", no_jp2=True), 24),
    "AVIF": (saved(noise(), "AVIF"), 0),
    "PPM": (saved(noise(), "PPM"), 0),
    "PBM": (saved(noise("1"), "PPM"), 0),
    "PFM": (saved(noise("L").convert("F"), "PPM"), 0),
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_header_says_what_pillow_decodes(kind: str) -> None:
    data, bits = SAMPLES[kind]
    with Image.open(io.BytesIO(data)) as image:
        kind_of_file = "JPEG" if image.format == "MPO" else image.format
        assert read_header(data, LIMITS) == Header(str(kind_of_file), 53, 37, 53 * 37, bits)


@pytest.mark.skipif(not find_spec("pillow_heif"), reason="the extra `heic` is not installed")
def test_a_heic_header_covers_what_is_decoded() -> None:
    header = read_header(saved(Image.new("RGB", (128, 64)), "HEIF"), LIMITS)
    assert (header.format, header.width, header.height) == ("HEIF", 128, 64)


def test_the_scans_of_a_progressive_jpeg_are_counted() -> None:
    data = saved(noise(), "JPEG", progressive=True)
    assert read_header(data, LIMITS).scans == data.count(b"\xff\xda") == 10  # libjpeg's own script
    assert read_header(saved(noise("L"), "JPEG", progressive=True), LIMITS).scans == 6


def test_a_preview_inside_exif_is_not_counted_as_a_scan() -> None:
    preview = saved(noise(), "JPEG", progressive=True)
    data = saved(noise(), "JPEG", progressive=True, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0" + preview)
    assert data.count(b"\xff\xda") == 20
    assert read_header(data, LIMITS).scans == 10


def test_a_gif_whose_frame_is_larger_than_its_screen_counts_the_frame() -> None:
    data = bytearray(saved(noise("L"), "GIF"))
    data[6:10] = struct.pack("<HH", 1, 1)
    assert read_header(bytes(data), LIMITS).pixels == 53 * 37
    assert decode_image(bytes(data), LIMITS).shape == (37, 53, 3)


def test_tiles_that_reach_over_the_edge_are_counted() -> None:
    data = gray_tiff(2, 2, (322, 4, 1, 4096), (323, 4, 1, 8192), (324, 4, 1, 8), (325, 4, 1, 4))
    assert read_header(data, LIMITS).pixels == 4096 * 8192


def test_fifty_megapixels_in_38_bytes_cost_microseconds() -> None:
    data = lossless_webp(16383, 3051)
    tracemalloc.start()
    started = time.process_time()
    for _ in range(100):
        assert read_header(data, LIMITS).pixels == 49_984_533
    seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds / 100 < 0.001
    assert peak < 100_000
    with pytest.raises(TooManyPixels, match=r"16383 x 16383.*SIGHTLINE_MAX_IMAGE_PIXELS"):
        read_header(lossless_webp(16383, 16383), LIMITS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF", "JPEG2000", "GIF", "BMP"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_decoding_takes_no_more_memory_than_the_header_says(kind: str, mode: str) -> None:
    if mode == "RGBA" and kind in ("JPEG", "GIF"):
        pytest.skip(f"{kind} has no alpha")
    data = saved(Image.new(mode, (2000, 1500), 90 if mode == "L" else (1, 2, 3, 4)[: len(mode)]), kind)
    bound = read_header(data, LIMITS).decoding_bytes
    decode_image(data, LIMITS)  # a decoder that is used for the first time allocates tables
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        pytest.skip("this C library keeps freed memory")
    trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # peak = present, proc_pid_clear_refs(5)
    except OSError:
        pytest.skip("the peak of memory cannot be reset here")
    started = peak_bytes()
    decode_image(data, LIMITS)
    assert peak_bytes() - started <= bound
    assert bound < 40 * 2000 * 1500


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


# Each is within the limits of bytes and of pixels. In brackets: the time Pillow 13 takes for it, or for one like it.
COSTLY: dict[str, Callable[[], bytes]] = {
    "150 scans of a JPEG (3.4 s at 50 megapixels)": lambda: with_scans(150),
    "one scan too many": lambda: with_scans(MAX_SCANS + 1),
    "fill bytes before a JPEG's segments (6.2 s)": lambda: with_segments(b"\xff" * FULL),
    "junk between a JPEG's segments (0.8 s)": lambda: with_segments(b"\xff\xfe\0\2" + b"a" * FULL),
    "empty comments in a JPEG": lambda: with_segments(b"\xff\xfe\0\2" * (FULL // 4)),
    "tiny EXIF segments, each appended to the last": lambda: with_segments(b"\xff\xe1\0\x09Exif\0\0a" * (FULL // 11)),
    "profiles of 1 KB that unpack to 1 MB (38 s)": lambda: png(
        8, 8, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1_000_000), 9)) * 9
    ),
    "empty PNG chunks before the pixels (1.1 s)": lambda: png(8, 8, chunk(b"teSt") * (FULL // 12)),
    "empty PNG chunks after the pixels (2.8 s)": lambda: png(
        8, 8, pixels=bytes(72), after=chunk(b"teSt") * (FULL // 12)
    ),
    "one byte of pixels in a chunk (1.2 s)": lambda: png(8, 8, chunk(b"IDAT", b"x") * (FULL // 13)),
    "a GIF's comments in blocks of a byte (1.5 s, 859 MB)": lambda: with_comments(
        b"!\xfe" + b"\1a" * (FULL // 2) + b"\0"
    ),
    "many GIF comments (1.5 s, 714 MB)": lambda: with_comments(b"!\xfe\1a\0" * (FULL // 5)),
    "a run-length BMP with many pixels (3.6 s)": lambda: run_length_bmp(16000, 3000, b"\1\7\0\0" * 3000),
    "a run-length BMP with many runs (2.7 s)": lambda: run_length_bmp(1000, 1000, b"\1\7" * (FULL // 2)),
    "a PPM written as text (2.1 s)": lambda: b"P3 1800 1800 255\n" + b"1 " * 9_720_000,
    "a PPM with comments, each of which copies the rest (5 s)": lambda: b"P2 1800 1800 255\n" + b"#\n" * 500_000,
    "a PPM whose white is 254 (5.4 s)": lambda: b"P6 2500 2500 254\n" + bytes(2500 * 2500 * 3),
    "strips of one row (18 s, 1.6 GB)": lambda: gray_tiff(
        2, 4_900_000, (278, 4, 1, 1), (273, 4, 4_900_000, 110), rest=struct.pack("<I", 4) * 4_900_000
    ),
    "strips that the picture has no room for (18 s, 1.2 GB)": lambda: gray_tiff(
        2, 2, (278, 4, 1, 1), (273, 4, 4_900_000, 110), rest=struct.pack("<I", 4) * 4_900_000
    ),
    "a resolution of millions of numbers": lambda: gray_tiff(
        2, 2, (282, 5, 2_400_000, 110), rest=struct.pack("<II", 3, 7) * 2_400_000
    ),
    "a depth of millions of numbers": lambda: gray_tiff(2, 2).replace(
        struct.pack("<HHII", 258, 3, 1, 8), struct.pack("<HHII", 258, 3, 5_000_000, 86)
    ),
    "60,000 tags": lambda: tiff(*((1000 + index, 3, 1, 0) for index in range(60_000))),
    "a WebP of 100,000 frames": lambda: (
        saved(noise(), "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0") + b"ANMF\0\0\0\0" * 100_000
    ),
    "JPEG 2000 in tiles of 8 pixels": lambda: saved(Image.new("L", (64, 64)), "JPEG2000").replace(
        struct.pack(">4I", 64, 64, 0, 0) * 2, struct.pack(">8I", 1048, 1048, 0, 0, 8, 8, 0, 0)
    ),
    "millions of JPEG 2000 packets without data": lambda: saved(noise(), "JPEG2000").replace(
        b"\xff\x52\0\x0c\0\0\0\1", b"\xff\x52\0\x0c\0\0\xff\xff"
    ),
}


@pytest.mark.parametrize("kind", COSTLY)
def test_what_would_keep_a_decoder_busy_is_refused_at_once(kind: str) -> None:
    data = COSTLY[kind]()
    assert len(data) <= LIMITS.max_image_bytes
    started = time.process_time()
    with pytest.raises(CostlyImage, match="would take too long to decode: it has") as caught:
        decode_image(data, LIMITS)
    assert time.process_time() - started < 0.3
    assert caught.value.hint


@pytest.mark.parametrize(
    "data",
    [
        with_scans(MAX_SCANS),
        with_segments(b"\xff" * 1_000 + b"\xff\xfe\0\2"),
        png(8, 8, chunk(b"tEXt", b"a\0b") * 1_000, pixels=bytes(72)),
        with_comments((b"!\xfe" + b"\xff" + b"a" * 255 + b"\0") * 1_000),
        run_length_bmp(300, 200, b"\xff\7\x2d\7\0\0" * 200 + b"\0\1"),
        b"P3 2 1 # a comment\n255\n1 2 3 4 5 6\n",
        b"P6\n2 1\n100\n" + bytes(6),
    ],
)
def test_unusual_files_of_an_ordinary_cost_decode(data: bytes) -> None:
    assert decode_image(data, LIMITS).ndim == 3


def test_a_tag_that_nobody_unpacks_may_be_long() -> None:
    data = saved(noise(), "TIFF", tiffinfo={50712: tuple(range(4_096))})  # a camera's table in a DNG
    assert decode_image(data, LIMITS).shape == (37, 53, 3)


def test_a_header_of_endless_comments_is_no_picture() -> None:
    with pytest.raises(TruncatedImage):
        decode_image(b"P6 #" + b"a" * 19_000_000 + b"\n1 1 255\n123", LIMITS)


def test_a_file_that_says_two_sizes_is_refused() -> None:
    data = saved(Image.new("L", (640, 480)), "JPEG2000")
    at = data.index(b"\xff\x4f\xff\x51")
    with pytest.raises(TruncatedImage, match="in one place and 640 x 480 in another"):
        decode_image(data[: at + 8] + struct.pack(">II", 64, 48) + data[at + 16 :], LIMITS)


@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_a_changed_header_is_read_or_refused(kind: str, data: st.DataObject) -> None:
    changed = bytearray(SAMPLES[kind][0])
    for position in data.draw(st.lists(st.integers(0, 120), min_size=1, max_size=6), label="positions"):
        changed[position % len(changed)] = data.draw(st.integers(0, 255), label="value")
    try:
        header = read_header(bytes(changed), LIMITS)
    except BadImage:
        return
    assert header.pixels >= header.width * header.height > 0


@given(st.binary(max_size=300))
def test_random_bytes_have_a_header_or_our_error(data: bytes) -> None:
    try:
        read_header(data, LIMITS)
    except BadImage:
        return


def test_what_is_no_picture_says_how_it_begins() -> None:
    with pytest.raises(NotAnImage, match="7 bytes beginning with b'<svg/>"):
        read_header(b"<svg/> ", LIMITS)


def test_every_format_that_is_decoded_has_a_reader_of_its_header() -> None:
    assert set(FORMATS) - {HEIC} <= {read_header(data, LIMITS).format for data, _ in SAMPLES.values()}


def test_a_probe_says_what_this_installation_reads() -> None:
    assert probe(SAMPLES["PNG"][0], LIMITS) == read_header(SAMPLES["PNG"][0], LIMITS)
    with pytest.raises(NotAnImage) as caught:
        probe(b"<svg/> ", LIMITS)
    assert "JPEG 2000" in caught.value.hint


def test_no_photo_of_the_data_sets_is_costly() -> None:
    root = Path(os.environ.get("SIGHTLINE_DATA", ""))
    photos = [path for folder in ("ants_bees", "imagenet") for path in (root / folder).rglob("*.jp*g")]
    if not os.environ.get("SIGHTLINE_DATA") or not photos:
        pytest.skip("SIGHTLINE_DATA has no photos")
    for path in photos:
        data = path.read_bytes()
        with Image.open(path) as image:
            header = read_header(data, LIMITS)
            assert (header.width, header.height) == image.size
            assert header.scans <= MAX_SCANS / 2  # the most of any was 14
