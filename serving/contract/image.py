"""Uploaded bytes to pixels: the only file that opens untrusted pictures."""

import contextlib
import io
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageOps,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from serving.contract.colors import to_srgb
from serving.contract.errors import EmptyImage, ImageTooLarge, NotAnImage, TooManyPixels, TruncatedImage
from serving.contract.image_limits import ImageLimits

# Decoders that are offered to strangers. Left out on purpose: formats that start other programs (EPS)
# and those that no camera, browser or scanner writes.
# Pillow opens a camera's MPO by the name of JPEG.
# Imported above, each is there from the start: Pillow would import all it has in the middle of a request.
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
with contextlib.suppress(ImportError):  # the extra `heic`: its wheels hold an encoder under the GPL
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    FORMATS.append(HEIC)

SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}  # how a file begins that was meant to be a picture, even where too little of it is left
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
BRANDS = {**dict.fromkeys(HEIC_BRANDS, "HEIC"), b"avif": "AVIF", b"avis": "AVIF"}  # after a length and "ftyp"

WHITE = (255, 255, 255, 255)
UPRIGHT = 1  # the EXIF orientation of most pictures
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height

TAGGED = ("TIFF", "MPO")  # formats that hold EXIF's tags among their own
METADATA = frozenset(["exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"])  # where Pillow looks for it

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
    are scaled to 8 bits, of an animation the first frame is taken.

    Returns uint8 (H, W, 3), 0-255.
    Raises EmptyImage, ImageTooLarge, TooManyPixels, NotAnImage, TruncatedImage.
    """
    return np.asarray(decode_picture(data, limits))


def decode_picture(data: bytes, limits: ImageLimits) -> Image.Image:
    """`decode_image` without the copy into an array: a picture of mode RGB."""
    return _decode(data, limits, None).picture


def decode_photo(data: bytes, limits: ImageLimits, max_side: int) -> Photo:
    """`decode_image`, with the long side brought down to `max_side` pixels; a smaller picture is not enlarged.

    A large JPEG is decoded at a half, a quarter or an eighth of its size (Pillow's `draft`): a photo of 12
    megapixels costs a fifth of what decoding all of it would.
    """
    decoded = _decode(data, limits, max_side)
    return Photo(np.asarray(decoded.picture), decoded.width, decoded.height)


@dataclass(frozen=True, slots=True)
class _Decoded:
    """picture: of mode RGB, upright; width, height: as in Photo."""

    picture: Image.Image
    width: int
    height: int


def _decode(data: bytes, limits: ImageLimits, max_side: int | None) -> _Decoded:
    if not data:
        raise EmptyImage("the picture has 0 bytes", hint="Is the file empty, or was it read to its end before?")
    if len(data) > limits.max_image_bytes:
        raise ImageTooLarge(
            f"the picture has {len(data):,} bytes; the limit is {limits.max_image_bytes:,} (SIGHTLINE_MAX_IMAGE_BYTES)",
            hint="Send a smaller or more compressed picture, or raise the limit.",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what is checked here: size, odd metadata
        image = _open(data)
        width, height = image.size
        _check_pixels(width, height, limits)
        try:
            if max_side is not None and image.format in DRAFTED:
                image.draft("RGB", _within(width, height, max_side))
            image.load()
            upright = image
            orientation = _orientation(image)
            if orientation != UPRIGHT:  # exif_transpose would copy the others
                upright = ImageOps.exif_transpose(image)
            if orientation in SIDEWAYS:
                width, height = height, width
            upright = _rgb(upright, image.info.get("icc_profile"))
            if max_side is not None:
                upright = upright.resize(_within(width, height, max_side), Image.Resampling.BILINEAR)
            return _Decoded(upright, width, height)
        except MemoryError:
            raise
        except Exception as exc:  # decoders raise whatever their format taught them: one border, one error
            raise TruncatedImage(
                f"the {image.format} picture of {width} x {height} cannot be decoded to its end: {exc}",
                hint="The file is cut off or damaged: send it again, whole.",
            ) from exc


def _orientation(image: Image.Image) -> int:
    """EXIF's. Pillow's `getexif` looks for longer where there is none than reading a small picture takes."""
    if image.format not in TAGGED and not METADATA.intersection(image.info):
        return UPRIGHT
    found: int = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    return found


def _within(width: int, height: int, max_side: int) -> tuple[int, int]:
    """(width, height) with the long side at most max_side, the shape kept."""
    scale = min(1.0, max_side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as exc:
        raise TooManyPixels(
            f"the picture is far too large: {exc}", hint="Scale the picture down before sending it."
        ) from exc
    except MemoryError:
        raise
    except Exception as exc:
        meant = _meant(data)
        if meant == "HEIC" and HEIC not in FORMATS:
            raise NotAnImage(
                "the picture is a HEIC file, and what reads those is not installed here",
                hint="Send it as a JPEG, or have the extra `heic` installed.",
            ) from exc
        if meant is not None:
            raise TruncatedImage(
                f"{len(data):,} bytes begin as a {meant} picture, but its header cannot be read",
                hint="The file is cut off or damaged: send it again, whole.",
            ) from exc
        raise NotAnImage(
            f"{len(data):,} bytes beginning with {data[:8]!r} are not a picture in a known format",
            hint=f"This installation reads {', '.join(readable_formats())}.",
        ) from exc


def readable_formats() -> list[str]:
    """Return the formats that this installation decodes, by the names that people use."""
    names = {HEIC: "HEIC", "JPEG2000": "JPEG 2000", "WEBP": "WebP", "DIB": "BMP"}
    return sorted({names.get(name, name) for name in FORMATS})


def _meant(data: bytes) -> str | None:
    """The format that the first bytes promise."""
    if data[4:8] == b"ftyp":
        return BRANDS.get(data[8:12])
    return next((kind for signature, kind in SIGNATURES.items() if data.startswith(signature)), None)


def _check_pixels(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_image_pixels:
        raise TooManyPixels(
            f"the picture has {width} x {height} = {width * height:,} pixels; the limit is "
            f"{limits.max_image_pixels:,} (SIGHTLINE_MAX_IMAGE_PIXELS)",
            hint="Scale the picture down before sending it, or raise the limit.",
        )


def _rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if not image.has_transparency_data:
        colors = to_srgb(image, profile)
        return colors if colors.mode == "RGB" else colors.convert("RGB")  # convert copies even when nothing changes
    layer = image.convert("RGBA")
    colors = to_srgb(image, profile)
    if colors is not image:
        colors.putalpha(layer.getchannel("A"))
        layer = colors
    return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), layer).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit gray to 8-bit gray; Pillow's own convert would clip at 255."""
    values = np.asarray(image).astype(np.int64).clip(0, 65535)
    return Image.fromarray((values // 257).astype(np.uint8))
