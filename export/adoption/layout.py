"""The form of a model's input: from the service's (n, h, w, c) to what the model takes."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from export.adoption.loaded_model import LoadedModel
from serving.contract.errors import InvalidData, UsageError
from serving.contract.preprocessing import Color

Form = Literal["channels_last", "channels_first", "without_channels", "rows"]
Shape = tuple[int | None, ...]
CHANNELS: dict[Color, int] = {"gray": 1, "rgb": 3}
COLORS: dict[int, Color] = {channels: color for color, channels in CHANNELS.items()}


@dataclass(frozen=True, slots=True)
class Layout:
    """Pixels of the image, its colors, and how the model takes its values."""

    height: int
    width: int
    color: Color
    form: Form = "channels_last"

    @property
    def channels(self) -> int:
        """3 for rgb, 1 for gray."""
        return CHANNELS[self.color]

    def in_graph(self, image: Any) -> Any:
        """Turn a tensor (n, h, w, c) into what the model takes."""
        import tensorflow as tf

        if self.form == "channels_first":  # no `match`: TensorFlow's AutoGraph cannot read it
            return tf.transpose(image, [0, 3, 1, 2])
        if self.form == "without_channels":
            return tf.squeeze(image, -1)
        if self.form == "rows":
            return tf.reshape(image, [-1, self.height * self.width * self.channels])
        return image


def layout_of(loaded: LoadedModel, size: tuple[int, int] | None, color: Color | None) -> Layout:
    """Read the layout from the input's shape. size: (height, width), of --image-size.

    Raises InvalidData for an input that is no image, UsageError where the shape leaves open what no option says.
    """
    shape = loaded.shape
    if shape is None:
        return _sized((None, None, None), "channels_last", size, color)
    if len(shape) == 1 and shape[0]:
        return _of_rows(shape[0], size, color)
    if len(shape) == 2:
        return _sized((*shape, 1), "without_channels", size, color)
    if len(shape) == 3 and (shape[2] in COLORS or shape[2] is None):
        return _sized(shape, "channels_last", size, color)
    if len(shape) == 3 and shape[0] in COLORS:
        return _sized((*shape[1:], shape[0]), "channels_first", size, color)
    raise InvalidData(
        f"The model's input is {_written(shape)}; it must be an image: (height, width, channels) with 1 or 3 channels, "
        "(channels, height, width), (height, width), or a row of numbers."
    )


def _sized(shape: Shape, form: Form, size: tuple[int, int] | None, color: Color | None) -> Layout:
    """Complete (h, w, c) with the options, which must agree with what is fixed."""
    height, width = (side or given for side, given in zip(shape[:2], size or (None, None), strict=True))
    if not height or not width:
        raise UsageError("The model takes images of any size.", hint="Choose one with --image-size, such as 224.")
    if size is not None and size != (height, width):
        raise UsageError(
            f"--image-size is {size[0]}x{size[1]}; the model takes images of {height} x {width} (height x width)."
        )
    found = COLORS[shape[2]] if shape[2] else color
    if found is None:
        raise UsageError("The model does not say how many channels it takes.", hint="Say --color rgb or --color gray.")
    if color not in (None, found):
        raise UsageError(f"--color is {color}; the model takes {found} images.")
    return Layout(height, width, found, form)


def _of_rows(length: int, size: tuple[int, int] | None, color: Color | None) -> Layout:
    """Lay out flat rows: line by line from the top, the channels of a pixel side by side."""
    if size is None:
        side = math.isqrt(length)
        example = f"--image-size {side} for {side} x {side} gray" if side * side == length else "--image-size 28x32"
        raise UsageError(f"The model takes rows of {length} numbers.", hint=f"Say how large its images are: {example}.")
    found = COLORS.get(length // (size[0] * size[1])) if length % (size[0] * size[1]) == 0 else None
    if found is None or color not in (None, found):
        wanted = f" in {color}" if color else ""
        raise UsageError(
            f"The model takes rows of {length} numbers; images of {size[0]} x {size[1]}{wanted} do not make such rows.",
            hint=f"Gray images make rows of {size[0] * size[1]}, color ones rows of {3 * size[0] * size[1]}.",
        )
    return Layout(*size, found, "rows")


def _written(shape: Shape) -> str:
    return f"({', '.join('any' if side is None else str(side) for side in shape)})"
