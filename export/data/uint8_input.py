"""The preprocessing of models whose scaling is part of the graph: they take uint8 pixels."""

from typing import Literal

from serving.contract.preprocessing import Color, Fit, Interpolation, Polarity, Preprocessing

Size = tuple[int, int]  # (height, width)


def uint8_preprocessing(
    color: Color,
    size: Size,
    fit: Fit,
    *,
    resize_short_side: int | None = None,
    interpolation: Interpolation = "bilinear",
    polarity: Polarity = "as_is",
) -> Preprocessing:
    """Resize to `size`, antialiased as Pillow does it; the pixels stay uint8."""
    channels = 3 if color == "rgb" else 1
    dtype: Literal["uint8"] = "uint8"
    return Preprocessing(
        color=color,
        height=size[0],
        width=size[1],
        fit=fit,
        resize_short_side=resize_short_side,
        interpolation=interpolation,
        antialias=True,
        polarity=polarity,
        dtype=dtype,
        scale=1.0,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        channel_order="rgb",
    )
