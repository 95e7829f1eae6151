"""Uploaded bytes to pixels: the only file that opens untrusted pictures."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from serving.contract.errors import EmptyImage, ImageTooLarge, NotAnImage, TooManyPixels, TruncatedImage

# Decoders that are offered to strangers. Left out on purpose: formats that start other programs (EPS)
# and those that no camera, browser or scanner writes. JPEG's decoder opens MPO, which Pillow does not list.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "PPM", "JPEG2000")

WHITE = (255, 255, 255, 255)

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a picture may cost before it is refused, unread. Names are those of the gateway's settings."""

    max_image_bytes: int = 20_000_000
    max_image_pixels: int = 50_000_000


def decode_image(data: bytes, limits: ImageLimits) -> Pixels:
    """Turn the bytes of a picture file into RGB pixels, upright, on white.

    The size is read from the header and checked before a pixel is decoded. EXIF orientation is honoured,
    transparency is composited on white, 16-bit grays are scaled to 8 bits, of an animation the first frame is taken.

    Returns uint8 (H, W, 3), 0-255.
    Raises EmptyImage, ImageTooLarge, TooManyPixels, NotAnImage, TruncatedImage.
    """
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
        _check_pixels(*image.size, limits)
        try:
            image.load()
            upright = ImageOps.exif_transpose(image)
            return np.asarray(_rgb(upright))
        except MemoryError:
            raise
        except Exception as exc:  # decoders raise whatever their format taught them: one border, one error
            raise TruncatedImage(
                f"the {image.format} picture of {image.width} x {image.height} cannot be decoded to its end: {exc}",
                hint="The file is cut off or damaged: send it again, whole.",
            ) from exc


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as exc:
        raise TooManyPixels(
            f"the picture is far too large: {exc}", hint="Scale the picture down before sending it."
        ) from exc
    except MemoryError:
        raise
    except UnidentifiedImageError as exc:
        raise NotAnImage(
            f"{len(data):,} bytes beginning with {data[:8]!r} are not a picture in a known format",
            hint="Send the bytes of a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF file.",
        ) from exc
    except Exception as exc:
        raise NotAnImage(
            f"the picture's header cannot be read: {exc}",
            hint="Send the bytes of a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF file.",
        ) from exc


def _check_pixels(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_image_pixels:
        raise TooManyPixels(
            f"the picture has {width} x {height} = {width * height:,} pixels; the limit is "
            f"{limits.max_image_pixels:,} (SIGHTLINE_MAX_IMAGE_PIXELS)",
            hint="Scale the picture down before sending it, or raise the limit.",
        )


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit gray to 8-bit gray; Pillow's own convert would clip at 255."""
    values = np.asarray(image).astype(np.int64).clip(0, 65535)
    return Image.fromarray((values // 257).astype(np.uint8))
