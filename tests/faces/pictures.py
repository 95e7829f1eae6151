"""Pictures made of the sample photos."""

import io
from pathlib import Path

from PIL import Image


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Encode an image as a file of Pillow's format `kind`."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def portrait(photos: Path) -> Image.Image:
    """Open the portrait of Obama, 910 x 1137 pixels."""
    return Image.open(photos / "known" / "obama.jpg").convert("RGB")
