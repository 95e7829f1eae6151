"""What a picture may cost. Apart from what decodes it, so that whoever reads settings need not load a decoder."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a picture may cost before it is refused, unread. Names are those of the gateway's settings."""

    max_image_bytes: int = 20_000_000
    max_image_pixels: int = 50_000_000
