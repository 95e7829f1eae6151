"""Uploaded bytes to pixels: the only file that opens untrusted pictures."""

import contextlib
import io
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from serving.contract.colors import to_srgb
from serving.contract.errors import BadImage, NotAnImage, TooManyPixels, TruncatedImage, UnknownPixelRange
from serving.contract.headers import Header, read_header
from serving.contract.image_limits import ImageLimits

# The decoders for untrusted input. Left out on purpose: formats that start other programs (EPS) and those that no
# camera, browser or scanner writes. A camera's MPO is opened as JPEG. They are imported above so that Pillow does not
# import all of its plugins in the middle of a request.
PLUGINS = (
    AvifImagePlugin.AvifImageFile,
    BmpImagePlugin.BmpImageFile,
    BmpImagePlugin.DibImageFile,
    GifImagePlugin.GifImageFile,
    Jpeg2KImagePlugin.Jpeg2KImageFile,
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    PpmImagePlugin.PpmImageFile,
    TiffImagePlugin.TiffImageFile,
    WebPImagePlugin.WebPImageFile,
)
FORMATS: list[str] = [str(plugin.format) for plugin in PLUGINS]
HEIC = "HEIF"  # as Pillow names it
HEVC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")  # no other decoder reads them
with contextlib.suppress(ImportError):  # the extra `heic`: its wheels hold an encoder under the GPL
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    FORMATS.append(HEIC)
ENDINGS = frozenset(ending for ending, name in Image.EXTENSION.items() if name in FORMATS)  # .jpg, .jfif, .png, ...

WHITE = (255, 255, 255, 255)
LEAST_OF_255 = 16  # a picture of floats of 0-255 whose brightest pixel is darker shows nothing
STRIP_PIXELS = 1 << 18  # converted at once, of a larger picture, where converting takes more memory than its result

# EXIF 2.32, 4.6.4: the transpose that undoes each orientation.
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SWAPPING = (TURNS[5], TURNS[6], TURNS[7], TURNS[8])  # width and height
SMALL_NUMBERS = {1: "B", 3: "H", 4: "I"}  # TIFF's types that an orientation may have
RAW_PROFILE = "Raw profile type exif"  # where ImageMagick puts EXIF in a PNG, in hexadecimal
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')

BITMAPS = ("BMP", "DIB")  # whose fourth byte may be padding
DRAFTED = ("JPEG", "MPO")  # decoded smaller from the same data; other formats would hand out their thumbnail

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Photo:
    """A picture that may have been shrunk while it was decoded.

    pixels: uint8 (h, w, 3), RGB, upright. width, height: of the whole picture, upright, in pixels.
    """

    pixels: Pixels
    width: int
    height: int


def decode_image(data: bytes, limits: ImageLimits) -> Pixels:
    """Turn the bytes of a picture file into RGB pixels, upright, on white.

    The size is read from the header and checked before a pixel is decoded. EXIF orientation is honoured,
    colours are brought to sRGB where a profile says what they are, transparency is composited on white, 16-bit grays
    are scaled to 8 bits, floats of 0-1 or 0-255 too, of an animation the first frame is taken.

    Returns uint8 (H, W, 3), 0-255.
    Raises EmptyImage, ImageTooLarge, TooManyPixels, CostlyImage, NotAnImage, TruncatedImage, UnknownPixelRange;
    MemoryError. `probe` tells beforehand how many pixels and how much memory it will take.
    """
    return _array(decode_picture(data, limits))


def decode_picture(data: bytes, limits: ImageLimits) -> Image.Image:
    """`decode_image` without the copy into an array: a picture of mode RGB."""
    return _decode(data, limits, None).picture


def decode_photo(data: bytes, limits: ImageLimits, max_side: int) -> Photo:
    """`decode_image`, with the long side brought down to `max_side` pixels; a smaller picture is not enlarged.

    A large JPEG is decoded at a half, a quarter or an eighth of its size (Pillow's `draft`): a photo of 12
    megapixels costs a fifth of what decoding all of it would.
    """
    decoded = _decode(data, limits, max_side)
    return Photo(_array(decoded.picture), decoded.width, decoded.height)


def probe(data: bytes, limits: ImageLimits) -> Header:
    """Read size and cost of a picture from its header, and refuse what `decode_image` would refuse unread.

    Decodes nothing: microseconds, whatever the picture's size. Raises as `read_header`.
    """
    if HEIC not in FORMATS and data[4:8] == b"ftyp" and data[8:12] in HEVC_BRANDS:
        raise _heic_not_installed()
    try:
        return read_header(data, limits)
    except NotAnImage as exc:
        raise NotAnImage(exc.detail, hint=f"This installation reads {', '.join(readable_formats())}.") from None


@dataclass(frozen=True, slots=True)
class _Decoded:
    """picture: of mode RGB, upright; width, height: as in Photo."""

    picture: Image.Image
    width: int
    height: int


def _decode(data: bytes, limits: ImageLimits, max_side: int | None) -> _Decoded:
    header = probe(data, limits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about size and odd metadata, which are checked here
        image = _open(data, header)
        width, height = image.size
        try:
            if max_side is not None and image.format in DRAFTED:
                image.draft("RGB", _within(width, height, max_side))
            image.load()
            turn = TURNS.get(_orientation(image))
            profile = image.info.get("icc_profile")
            upright = image if turn is None else image.transpose(turn)
            if turn in SWAPPING:
                width, height = height, width
            upright = _rgb(upright, profile)
            if max_side is not None:
                upright = upright.resize(_within(width, height, max_side), Image.Resampling.BILINEAR)
            return _Decoded(upright, width, height)
        except (MemoryError, BadImage):
            raise
        except Exception as exc:  # decoders raise many kinds of exception; this is where they become one
            raise TruncatedImage(
                f"The {image.format} picture of {width} x {height} cannot be decoded to its end: {exc}.",
                hint="The file is cut off or damaged: send it again, whole.",
            ) from exc


def _within(width: int, height: int, max_side: int) -> tuple[int, int]:
    """(width, height) with the long side at most max_side, the shape kept."""
    scale = min(1.0, max_side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _open(data: bytes, header: Header) -> Image.Image:
    """Open a picture without decoding a pixel. Raises TruncatedImage if it is larger than its header says."""
    try:
        if header.format == HEIC:  # its brands may be AVIF's, too: let Pillow decide
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        else:  # Image.open would offer the bytes to every decoder in turn: a tenth of a small picture's time
            opener, _ = Image.OPEN[header.format]
            image = opener(io.BytesIO(data), "")
    except Image.DecompressionBombError as exc:
        raise TooManyPixels(
            f"The picture is far too large: {exc}", hint="Scale the picture down before sending it."
        ) from exc
    except MemoryError:
        raise
    except Exception as exc:
        if header.format == HEIC and HEIC not in FORMATS:
            raise _heic_not_installed() from exc
        raise TruncatedImage(
            f"The {len(data):,} bytes begin as a {header.format} picture, but its header cannot be read.",
            hint="The file is cut off or damaged: send it again, whole.",
        ) from exc
    if image.width * image.height > header.pixels:
        raise TruncatedImage(
            f"The {header.format} picture says {header.width} x {header.height} in one place and "
            f"{image.width} x {image.height} in another.",
            hint="The file is damaged: save it again with any editor, and send that.",
        )
    return image


def readable_formats() -> list[str]:
    """Return the formats that this installation decodes, by the names that people use."""
    names = {HEIC: "HEIC", "JPEG2000": "JPEG 2000", "WEBP": "WebP", "DIB": "BMP"}
    return sorted({names.get(name, name) for name in FORMATS})


def _heic_not_installed() -> NotAnImage:
    return NotAnImage(
        "The picture is a HEIC file, and what reads those is not installed here.",
        hint="Send it as a JPEG, or have the extra `heic` installed.",
    )


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation alone: `getexif` would parse every tag, of which a hostile file may hold millions."""
    if image.format == "TIFF":
        return _number(image.tag_v2.get(ORIENTATION))  # type: ignore[attr-defined]  # of TiffImageFile
    info = image.info
    found = 0
    if exif := info.get("exif"):
        found = _orientation_of(exif)
    elif profile := info.get(RAW_PROFILE):
        found = _orientation_of(bytes.fromhex("".join(profile.split("\n")[3:])))
    if not found:
        text = info.get("XML:com.adobe.xmp") or info.get("xmp") or b""
        match = XMP_ORIENTATION.search(text.encode() if isinstance(text, str) else text)
        found = int(match[1]) if match else 0
    return found


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _orientation_of(exif: bytes) -> int:
    """Return the orientation in EXIF's first directory (TIFF 6.0, section 2); 0 if there is none."""
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return 0
    (at,) = struct.unpack_from(order + "I", exif, 4)
    if at + 2 > len(exif):
        return 0
    (count,) = struct.unpack_from(order + "H", exif, at)
    tags = exif[at + 2 : at + 2 + 12 * count]
    for tag, kind, values, value in struct.iter_unpack(order + "HHI4s", tags[: len(tags) // 12 * 12]):
        if tag == ORIENTATION and values == 1 and kind in SMALL_NUMBERS:
            return int(struct.unpack_from(order + SMALL_NUMBERS[kind], value)[0])
    return 0


def _rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode in ("F", "I"):
        image = _scaled_to_bytes(image)
    elif image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if not image.has_transparency_data or _is_blank_alpha(image):
        if image.mode == "RGBA":
            image = image.convert("RGB")
        colors = to_srgb(image, profile)
        return colors if colors.mode == "RGB" else colors.convert("RGB")  # convert copies even when nothing changes
    if image.width * image.height <= STRIP_PIXELS:
        return _on_white(image, profile)
    page = Image.new("RGB", image.size)
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        page.paste(_on_white(image.crop(box), profile), box)
    return page


def _on_white(image: Image.Image, profile: bytes | None) -> Image.Image:
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    colors = to_srgb(image, profile)
    if colors is not image:
        colors.putalpha(layer.getchannel("A"))
        layer = colors
    return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), layer).convert("RGB")


def _is_blank_alpha(image: Image.Image) -> bool:
    """Tell a bitmap whose fourth byte was never written: most programs leave it 0 and mean an opaque picture."""
    return image.format in BITMAPS and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit gray to 8-bit gray; Pillow's own convert would clip at 255."""
    return _gray(image, lambda values: values // 257)


def _scaled_to_bytes(image: Image.Image) -> Image.Image:
    """Scale 32-bit integers or floats to 8-bit gray, by the range that they lie in.

    Floats of 0-1 are stretched to 0-255. Values up to 255 are kept; integers up to 65,535 are read as 16-bit gray.
    Raises UnknownPixelRange for all others, and for floats that end a little above 1: a resized picture of 0-1, or more
    light than white, would be black in 0-255.
    """
    lowest, highest = image.getextrema()
    if not isinstance(lowest, int | float) or not isinstance(highest, int | float):
        raise ValueError(f"the pixels of mode {image.mode} have several channels")
    is_float = image.mode == "F"
    if is_float and not _is_finite(image):
        raise _unknown_range("not all of them finite")
    if lowest < 0 or highest > (255 if is_float else 65535) or (is_float and 1 < highest < LEAST_OF_255):
        raise _unknown_range(f"between {lowest:g} and {highest:g}")
    if is_float:
        scale = np.float32(255 if highest <= 1 else 1)
        return _gray(image, lambda values: np.rint(values * scale))
    return _gray(image, lambda values: values if highest <= 255 else values // 257)


def _unknown_range(found: str) -> UnknownPixelRange:
    return UnknownPixelRange(
        f"The picture's pixels are 32-bit numbers, {found}: which of them is white cannot be known.",
        hint="Scale them to 0-1 or to 0-255, or save the picture with 8 or 16 bits a channel.",
    )


def _array(picture: Image.Image) -> Pixels:
    """Return the pixels of a picture without the second copy that `np.asarray` makes."""
    if picture.width * picture.height <= STRIP_PIXELS:
        return np.asarray(picture)
    pixels = np.empty((picture.height, picture.width, 3), np.uint8)
    for top, values in _strips(picture):
        pixels[top : top + len(values)] = values
    return pixels


def _is_finite(image: Image.Image) -> bool:
    return all(bool(np.isfinite(values).all()) for _, values in _strips(image))


def _gray(image: Image.Image, to_bytes: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Image.Image:
    """Convert to gray in strips of rows: a copy of the whole in a wider type would double the memory."""
    gray = np.empty((image.height, image.width), np.uint8)
    for top, values in _strips(image):
        gray[top : top + len(values)] = to_bytes(values)
    return Image.fromarray(gray)


def _strips(image: Image.Image) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield (first row, values) for each strip of rows of a picture."""
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))
