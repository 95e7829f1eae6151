"""Whatever a caller holds, as the bytes of a picture file. Pillow and numpy are needed for their own pictures only."""

import io
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, Union

from sightline.errors import BadImage, MissingPackage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

Picture: TypeAlias = Union[
    str, os.PathLike[str], bytes, bytearray, memoryview, IO[bytes], "Image.Image", "npt.NDArray[np.uint8]"
]

PNG_COMPRESSION = 1  # of 0-9: lossless all the same; the network is rarely slower than zlib's best
RAW_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


@dataclass(frozen=True, slots=True)
class Upload:
    """One picture, ready to be sent. name: what the service calls it in its answer."""

    name: str
    data: bytes


def to_upload(picture: Picture, position: int = 0) -> Upload:
    """Turn a picture into the bytes of a file.

    picture: a path; the bytes of a file; a file open for reading in binary mode; a PIL image; an array of uint8
    (H, W), (H, W, 3) or (H, W, 4), 0-255, RGB(A). position: names a picture that has no name of its own.
    Raises BadImage for a path that cannot be read, MissingPackage for an array without Pillow; TypeError and
    ValueError for what is not a picture at all.
    """
    if isinstance(picture, str | os.PathLike):
        return Upload(os.path.basename(os.fspath(picture)), read_file(picture))
    if isinstance(picture, bytes | bytearray | memoryview):
        return Upload(f"image-{position}", bytes(picture))
    if _is_a(picture, "PIL.Image", "Image"):
        return Upload(f"image-{position}.png", _png(picture))
    if _is_a(picture, "numpy", "ndarray"):
        return Upload(f"image-{position}.png", _png(_from_array(picture)))
    if hasattr(picture, "read"):
        return _from_file(picture, position)
    raise TypeError(f"a picture is a path, bytes, a binary file, a PIL image or an array, not {type(picture).__name__}")


def read_file(path: str | os.PathLike[str]) -> bytes:
    """A file's bytes. Raises BadImage with the code `unreadable_file`."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        why = getattr(exc, "strerror", None) or exc
        raise BadImage(f"{os.fspath(path)!r} cannot be read: {why}.", code="unreadable_file") from exc


def _is_a(value: object, module: str, name: str) -> bool:
    """Check the class of a value without importing its module: whoever made the value has done so."""
    return module in sys.modules and isinstance(value, getattr(sys.modules[module], name))


def _from_file(file: Any, position: int) -> Upload:
    data = file.read()
    if not isinstance(data, bytes):
        raise TypeError("the file is open in text mode; open it with mode 'rb'")
    name = getattr(file, "name", None)
    return Upload(os.path.basename(name) if isinstance(name, str) else f"image-{position}", data)


def _from_array(array: Any) -> "Image.Image":
    try:
        from PIL import Image
    except ImportError as exc:
        raise MissingPackage(
            "An array is sent as a PNG, which needs the package Pillow.", hint="Install it: pip install pillow."
        ) from exc
    has_colors = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if array.dtype != "uint8" or not has_colors or array.size == 0:
        raise ValueError(
            f"the array is {array.dtype} {array.shape}; a picture is uint8 (H, W), (H, W, 3) or (H, W, 4), 0-255"
        )
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    if image.mode not in RAW_PNG_MODES:
        image = image.convert("RGB")  # CMYK, YCbCr, HSV: PNG has no such colours
    image.save(buffer, "PNG", compress_level=PNG_COMPRESSION)
    return buffer.getvalue()
