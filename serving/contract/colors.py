"""Convert colours to sRGB by the ICC profile inside a picture. Profiles are untrusted input, like the pictures."""

import functools
import io

import numpy as np
from PIL import Image, ImageCms

MAX_PROFILE_BYTES = 4_000_000  # the largest of printing presses have 3 MB
KEPT_PROFILE_BYTES = 65_536  # cameras' and displays' are smaller; those of presses are too large to keep
NEAR = 2  # of 0-255; a profile that moves no colour further is taken for sRGB
LATTICE_STEPS = 9  # per channel, of the colours at which that is asked
GRAYS = ("1", "L", "LA", "La")


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return the picture with its colours in sRGB; it is opaque if it was converted.

    profile: the ICC profile that the file holds, or None.
    Returns the very picture where it has no profile, the profile is sRGB's, or is of no use: it is damaged, or made for
    other channels than the picture has. Lab pictures need none.
    """
    if image.mode == "LAB":
        return _lab_to_srgb().apply(image)
    if not profile or len(profile) > MAX_PROFILE_BYTES:
        return image
    mode = "CMYK" if image.mode == "CMYK" else "L" if image.mode in GRAYS else "RGB"
    find = _transform if len(profile) <= KEPT_PROFILE_BYTES else _transform.__wrapped__
    found = find(profile, mode)
    if found is None:
        return image
    transform, wanted = found
    return transform.apply(image if image.mode == wanted else image.convert(wanted))


@functools.lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> tuple[ImageCms.ImageCmsTransform, str] | None:
    """Return the transform from this profile to sRGB and the mode that it takes; None if there is nothing to convert.

    mode: the picture's, of L, RGB and CMYK. A gray picture may have a profile for three channels.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        wanted = {("GRAY", "L"): "L", ("RGB", "L"): "RGB", ("RGB", "RGB"): "RGB", ("CMYK", "CMYK"): "CMYK"}[space, mode]
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), wanted, "RGB")
        is_srgb = wanted != "CMYK" and _is_identity(transform, wanted)
    except (ImageCms.PyCMSError, OSError, ValueError, KeyError):
        return None
    return None if is_srgb else (transform, wanted)


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    steps = np.linspace(0, 255, LATTICE_STEPS if mode == "RGB" else 256).astype(np.uint8)
    colors = np.stack(np.meshgrid(*[steps] * len(mode), indexing="ij"), axis=-1).reshape(1, -1, len(mode))
    probe = Image.fromarray(colors if mode == "RGB" else colors[..., 0])
    moved = np.abs(np.asarray(transform.apply(probe)).astype(int) - colors)
    return bool(moved.max() <= NEAR)


@functools.cache
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
