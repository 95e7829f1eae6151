"""Limits on the cost of a picture, in a module of their own so that reading settings loads no decoder."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The cost past which a picture is refused unread. The names are those of the gateway's settings."""

    max_image_bytes: int = 20_000_000
    max_image_pixels: int = 50_000_000
    max_request_pixels: int = 200_000_000  # of all pictures of a request
