"""Turn pixels into the tensor that a model was trained on: the only resize, crop and scale code in the project.

`Preprocessing` has no defaults: whoever trains or adopts a model says every number, and the numbers travel
with the model in its card. Training, verification, gateway and clients all call `Preprocessing.apply`.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from serving.contract.errors import InvalidCard
from serving.contract.image import Pixels
from serving.contract.ink import frame_ink, has_light_ground

Color = Literal["rgb", "gray"]
Fit = Literal["stretch", "crop", "fill", "pad", "ink"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box"]
Polarity = Literal["as_is", "dark_background"]
ChannelOrder = Literal["rgb", "bgr"]
Dtype = Literal["uint8", "float32"]

Tensor = npt.NDArray[Any]  # uint8 or float32 (height, width, channels)

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}
WIDEST_FILTER = 3  # pixels to either side that Lanczos looks at, when it does not shrink; the others look at fewer
# Pixels. A picture resized to more than these, of which a window is kept, is resized in that window only. Photos stay
# below: at 256 pixels of the short side they would have to be 61 times as long as they are wide.
LARGE_RESULT = 4_000_000
WITHOUT_ANTIALIAS = ("nearest", "bilinear", "bicubic")  # what Image.transform can sample without a filter


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The steps from a decoded picture to a model's input. Frozen, and without defaults on purpose.

    color: channels that the model wants. height, width: pixels of the tensor.
    fit: `stretch` resizes both sides; `crop` resizes the short side and crops the centre, in whole pixels; `fill`
      resizes the largest centre piece of the right shape, in fractions of pixels, as PIL.ImageOps.fit does; `pad`
      resizes the long side and pads with black; `ink` finds a drawing and frames it as MNIST does.
    resize_short_side: with `crop`, the pixels of the short side before cropping (256 for 224 in most ImageNet
      recipes); None crops the largest centre piece of the right shape.
    interpolation, antialias: the sampling filter, and whether it widens when shrinking (Pillow does, `tf.image.resize`
      by default does not).
    polarity: `dark_background` inverts a picture whose border is bright.
    dtype: `uint8` where the model scales its input itself: then scale is 1, mean 0, std 1, channel_order rgb.
    scale, mean, std, channel_order: for `float32`: (pixel * scale - mean) / std, in this order of channels.
    """

    color: Color
    height: int
    width: int
    fit: Fit
    resize_short_side: int | None
    interpolation: Interpolation
    antialias: bool
    polarity: Polarity
    dtype: Dtype
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: ChannelOrder

    def __post_init__(self) -> None:
        """Refuse steps that `apply` could not carry out. Raises InvalidCard."""
        for problem in self._problems():
            raise InvalidCard(f"preprocessing: {problem}")

    def _problems(self) -> "list[str]":
        identity = (self.scale, set(self.mean), set(self.std), self.channel_order) == (1, {0}, {1}, "rgb")
        checks = {
            f"height and width are {self.height} x {self.width}; both must be at least 1": min(self.height, self.width)
            < 1,
            f"color {self.color} wants {self.channels} numbers in mean and in std, "
            f"not {len(self.mean)} and {len(self.std)}": {len(self.mean), len(self.std)} != {self.channels},
            "std holds a zero": 0 in self.std,
            "dtype uint8 wants scale 1, mean 0, std 1 and channel_order rgb: the model scales its input itself": (
                self.dtype == "uint8" and not identity
            ),
            f"resize_short_side is for fit crop, not {self.fit}": (
                self.resize_short_side is not None and self.fit != "crop"
            ),
            f"resize_short_side {self.resize_short_side} is smaller than the crop": (
                self.resize_short_side is not None and self.resize_short_side < max(self.height, self.width)
            ),
            "fit fill is done with antialias": self.fit == "fill" and not self.antialias,
            "fit ink wants color gray": self.fit == "ink" and self.color != "gray",
            f"{self.interpolation} cannot be done without antialias": (
                not self.antialias and self.interpolation not in WITHOUT_ANTIALIAS
            ),
        }
        return [problem for problem, broken in checks.items() if broken]

    @property
    def channels(self) -> int:
        """3 for rgb, 1 for gray."""
        return 3 if self.color == "rgb" else 1

    def apply(self, image: Pixels | Image.Image) -> Tensor:
        """Turn one decoded picture into the tensor that this model was trained on.

        image: uint8 (H, W, 3), RGB, 0-255, or a picture of mode RGB. Not modified.
        Returns uint8 or float32 (height, width, channels), as `dtype` says: a fresh array.
        """
        return self.scaled(self.pixels(image))

    def pixels(self, image: Pixels | Image.Image) -> Pixels:
        """Return what the model sees as a picture, `apply` without the arithmetic: uint8 (height, width, channels)."""
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        if self.color == "gray":
            picture = picture.convert("L")  # ITU-R 601-2 luma; gray pixels keep their value exactly
        values = np.asarray(self._fitted(picture)) if self.polarity == "as_is" else self._on_dark(picture)
        return values.reshape(self.height, self.width, self.channels)

    def _on_dark(self, picture: Image.Image) -> Pixels:
        """Fit the picture, inverted first if its ground is light."""
        gray = picture if picture.mode == "L" else picture.convert("L")
        if gray is picture and self.fit in ("stretch", "pad") and picture.size == (self.width, self.height):
            values = np.asarray(gray)  # making the array again would take as long as all the rest
            return 255 - values if has_light_ground(gray, values) else values
        is_light = has_light_ground(gray)
        return np.asarray(self._fitted(ImageOps.invert(picture) if is_light else picture))

    def _fitted(self, picture: Image.Image) -> Image.Image:
        match self.fit:
            case "stretch":
                return self._resized(picture, self.width, self.height)
            case "crop":
                return self._cropped(picture)
            case "fill":
                return ImageOps.fit(picture, (self.width, self.height), RESAMPLING[self.interpolation])
            case "pad":
                return self._padded(picture)
            case "ink":
                return frame_ink(picture, self.width, self.height)

    def _resized(self, picture: Image.Image, width: int, height: int) -> Image.Image:
        if picture.size == (width, height):
            return picture
        method = RESAMPLING[self.interpolation]
        if self.antialias or method == Image.Resampling.NEAREST:
            if picture.height > height and width > picture.width and width * picture.height > LARGE_RESULT:
                picture = picture.resize((picture.width, height), method)  # Pillow would widen every row first
            return picture.resize((width, height), method)
        affine = (picture.width / width, 0, 0, 0, picture.height / height, 0)
        return picture.transform((width, height), Image.Transform.AFFINE, affine, method)

    def _cropped(self, picture: Image.Image) -> Image.Image:
        if self.resize_short_side is None:
            scale = max(self.width / picture.width, self.height / picture.height)
            width, height = int(picture.width * scale), int(picture.height * scale)
        else:  # as torchvision: the short side exactly, the long side truncated; a factor would lose a pixel of 49
            short, side = min(picture.size), self.resize_short_side
            width, height = (int(side * length / short) for length in picture.size)
        width, height = max(self.width, width), max(self.height, height)
        left, top = round((width - self.width) / 2), round((height - self.height) / 2)
        if width * height > LARGE_RESULT:
            return self._window(picture, width, height, left, top)
        return self._resized(picture, width, height).crop((left, top, left + self.width, top + self.height))

    def _window(self, picture: Image.Image, width: int, height: int, left: int, top: int) -> Image.Image:
        """Resize the picture to width x height, but make the window at (left, top) only.

        Pillow keeps the window's corners as float32, so that a pixel may differ by 1 of 255 from one that is cut out
        of the whole. Memory and time are bounded by the picture and the tensor.
        """
        method = RESAMPLING[self.interpolation]
        across, down = picture.width / width, picture.height / height
        if not self.antialias:
            affine = (across, 0, left * across, 0, down, top * down)
            return picture.transform((self.width, self.height), Image.Transform.AFFINE, affine, method)
        first_column, last_column = _reach(left * across, (left + self.width) * across, across, picture.width)
        first_row, last_row = _reach(top * down, (top + self.height) * down, down, picture.height)
        piece = picture.crop((first_column, first_row, last_column, last_row))
        box = (
            left * across - first_column,
            top * down - first_row,
            min((left + self.width) * across - first_column, piece.width),
            min((top + self.height) * down - first_row, piece.height),
        )
        return piece.resize((self.width, self.height), method, box)

    def _padded(self, picture: Image.Image) -> Image.Image:
        scale = min(self.width / picture.width, self.height / picture.height)
        width, height = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        if (width, height) == (self.width, self.height):
            return self._resized(picture, width, height)
        frame = Image.new(picture.mode, (self.width, self.height))
        frame.paste(self._resized(picture, width, height), ((self.width - width) // 2, (self.height - height) // 2))
        return frame

    def scaled(self, pixels: Pixels) -> Tensor:
        """The arithmetic of `apply`, of what `pixels` returned. A fresh array."""
        if self.dtype == "uint8":
            return pixels.copy()
        ordered = pixels[..., ::-1] if self.channel_order == "bgr" else pixels
        scaled = ordered.astype(np.float32) * np.float32(self.scale)
        return (scaled - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)


def _reach(start: float, end: float, scale: float, side: int) -> tuple[int, int]:
    """Return the source pixels (first, last + 1) that a filter needs for those between start and end.

    scale: source pixels for one of the result, as `start` and `end` in pixels of the source. side: all that there are.
    """
    margin = WIDEST_FILTER * max(1.0, scale) + 1
    return max(0, math.floor(start - margin)), min(side, math.ceil(end + margin))
