"""Pixels to the tensor that a model was trained on: the only resize, crop and scale code in the project.

`Preprocessing` has no defaults: whoever trains or adopts a model says every number, and the numbers travel
with the model in its card. Training, verification, gateway and clients all call `Preprocessing.apply`.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from serving.contract.errors import InvalidCard
from serving.contract.image import Pixels

Color = Literal["rgb", "gray"]
Fit = Literal["stretch", "crop", "pad", "ink"]
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
WITHOUT_ANTIALIAS = ("nearest", "bilinear", "bicubic")  # what Image.transform can sample without a filter

# How MNIST was made: the digit in a box of 20 x 20, centred by its mass in 28 x 28.
# Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998.
INK_BOX = 20 / 28
BRIGHT = 127  # of 0-255; a border whose median is above it is light paper
INK_FLOOR = 0.25  # of the darkest ink; fainter marks do not stretch the box round the digit
NOISE_FLOOR = 0.10  # of the darkest ink; fainter marks are paper
SAME_SIZE = 0.12  # a digit within 12 % of its box is not resampled: it would only be blurred
WORK_SIDE = 160  # pixels; larger drawings are shrunk to it before their strokes are measured
THIN_STROKE = 2.0  # pixels in the 28 x 28 frame; MNIST's strokes measure 2 to 4 (2 x area / outline)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a decoded picture becomes a model's input. Frozen, and without defaults on purpose.

    color: channels that the model wants. height, width: pixels of the tensor.
    fit: `stretch` resizes both sides; `crop` resizes the short side and crops the centre; `pad` resizes the long
      side and pads with black; `ink` finds a drawing and frames it as MNIST does.
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
        """Refuse what `apply` could not carry out. Raises InvalidCard."""
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

    def apply(self, image: Pixels) -> Tensor:
        """Turn one decoded picture into the tensor that this model was trained on.

        image: uint8 (H, W, 3), RGB, 0-255. Not modified.
        Returns uint8 or float32 (height, width, channels), as `dtype` says: a fresh array.
        """
        picture = Image.fromarray(image)
        if self.color == "gray":
            picture = picture.convert("L")  # ITU-R 601-2 luma; gray pixels keep their value exactly
        if self.polarity == "dark_background":
            picture = _on_dark(picture)
        pixels = np.asarray(self._fitted(picture)).reshape(self.height, self.width, self.channels)
        return self._scaled(pixels)

    def _fitted(self, picture: Image.Image) -> Image.Image:
        match self.fit:
            case "stretch":
                return self._resized(picture, self.width, self.height)
            case "crop":
                return self._cropped(picture)
            case "pad":
                return self._padded(picture)
            case "ink":
                return frame_ink(picture, self.width, self.height)

    def _resized(self, picture: Image.Image, width: int, height: int) -> Image.Image:
        if picture.size == (width, height):
            return picture
        method = RESAMPLING[self.interpolation]
        if self.antialias or method == Image.Resampling.NEAREST:
            return picture.resize((width, height), method)
        affine = (picture.width / width, 0, 0, 0, picture.height / height, 0)
        return picture.transform((width, height), Image.Transform.AFFINE, affine, method)

    def _cropped(self, picture: Image.Image) -> Image.Image:
        if self.resize_short_side is None:
            scale = max(self.width / picture.width, self.height / picture.height)
        else:
            scale = self.resize_short_side / min(picture.size)
        # torchvision truncates the long side; rounding differs by one pixel of a few hundred
        width = max(self.width, int(picture.width * scale))
        height = max(self.height, int(picture.height * scale))
        left, top = round((width - self.width) / 2), round((height - self.height) / 2)
        return self._resized(picture, width, height).crop((left, top, left + self.width, top + self.height))

    def _padded(self, picture: Image.Image) -> Image.Image:
        scale = min(self.width / picture.width, self.height / picture.height)
        width, height = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        frame = Image.new(picture.mode, (self.width, self.height))
        frame.paste(self._resized(picture, width, height), ((self.width - width) // 2, (self.height - height) // 2))
        return frame

    def _scaled(self, pixels: Pixels) -> Tensor:
        if self.dtype == "uint8":
            return pixels.copy()
        ordered = pixels[..., ::-1] if self.channel_order == "bgr" else pixels
        scaled = ordered.astype(np.float32) * np.float32(self.scale)
        return (scaled - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)


def _on_dark(picture: Image.Image) -> Image.Image:
    """The picture, inverted when the median of its border is bright: dark ink on light paper."""
    if np.median(_border(np.asarray(picture.convert("L")))) <= BRIGHT:
        return picture
    return Image.eval(picture, lambda value: 255 - value)


def _border(gray: Pixels) -> Pixels:
    """The outermost pixels of a picture. gray: (H, W). Returns (2 H + 2 W,)."""
    return np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])


def frame_ink(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Frame a light drawing on a dark ground as MNIST frames its digits.

    The drawing is cut out, its strokes are thickened where they would vanish, it is scaled into 20/28 of the frame
    and centred by its mass. A picture of MNIST passes through nearly unchanged; a blank one stays blank.
    picture: mode L, light on dark. Returns mode L, width x height.
    """
    ink = _ink(picture)
    drawing = _cut_out(ink)
    frame = np.zeros((height, width), np.uint8)
    if drawing is None:
        return Image.fromarray(frame)
    patch = np.asarray(_scaled_into(Image.fromarray(drawing), round(width * INK_BOX), round(height * INK_BOX)))
    top, left = _centred(patch, height, width)
    frame[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
    return Image.fromarray(frame)


def _ink(picture: Image.Image) -> Pixels:
    """What stands out from the ground, 0-255. Returns uint8 (H, W)."""
    gray = np.asarray(picture).astype(np.int16)
    ink = np.clip(gray - int(np.median(_border(np.asarray(picture)))), 0, 255)
    darkest = int(ink.max())
    if darkest == 0:
        return ink.astype(np.uint8)
    ink[ink < NOISE_FLOOR * darkest] = 0
    return (ink * 255 // darkest).astype(np.uint8)


def _cut_out(ink: Pixels) -> Pixels | None:
    """The rectangle that holds the drawing, or None where there is none. ink: (H, W)."""
    marks = ink > INK_FLOOR * 255
    rows, columns = np.flatnonzero(marks.any(axis=1)), np.flatnonzero(marks.any(axis=0))
    if rows.size == 0:
        return None
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _scaled_into(drawing: Image.Image, width: int, height: int) -> Image.Image:
    """The drawing at the size of the box, its strokes thick enough to be seen."""
    scale = min(width / drawing.width, height / drawing.height)
    if abs(scale - 1) <= SAME_SIZE:
        return drawing
    if max(drawing.size) > WORK_SIDE:
        drawing.thumbnail((WORK_SIDE, WORK_SIDE), Image.Resampling.BOX)
        scale = min(width / drawing.width, height / drawing.height)
    thickness = _stroke_width(np.asarray(drawing)) * scale
    if thickness < THIN_STROKE and scale < 1:
        drawing = _thickened(drawing, (THIN_STROKE - thickness) / scale)
        scale = min(width / drawing.width, height / drawing.height)
    size = max(1, round(drawing.width * scale)), max(1, round(drawing.height * scale))
    scaled = drawing.resize(size, Image.Resampling.BILINEAR)
    brightest = max(1, int(np.asarray(scaled).max()))
    return Image.eval(scaled, lambda value: min(255, value * 255 // brightest))


def _stroke_width(ink: Pixels) -> float:
    """The mean width of a drawing's strokes in pixels: twice its area over the length of its outline."""
    marks = np.pad(ink > INK_FLOOR * 255, 1)
    inner = marks[1:-1, 1:-1] & marks[:-2, 1:-1] & marks[2:, 1:-1] & marks[1:-1, :-2] & marks[1:-1, 2:]
    outline = int(marks.sum()) - int(inner.sum())
    return 2 * int(marks.sum()) / max(1, outline)


def _thickened(drawing: Image.Image, pixels: float) -> Image.Image:
    """The drawing with strokes wider by `pixels` (rounded to an even number), its frame grown by as much."""
    margin = max(1, round(pixels / 2))
    grown = Image.new("L", (drawing.width + 2 * margin, drawing.height + 2 * margin))
    grown.paste(drawing, (margin, margin))
    return grown.filter(ImageFilter.MaxFilter(2 * margin + 1))


def _centred(patch: Pixels, height: int, width: int) -> tuple[int, int]:
    """(top, left) that bring the patch's centre of mass to the middle of the frame, the patch kept inside."""
    mass = patch.astype(np.float64)
    rows = float((mass.sum(axis=1) * np.arange(patch.shape[0])).sum() / mass.sum())
    columns = float((mass.sum(axis=0) * np.arange(patch.shape[1])).sum() / mass.sum())
    top, left = round(height / 2 - rows), round(width / 2 - columns)
    return (
        min(max(top, 0), height - patch.shape[0]),
        min(max(left, 0), width - patch.shape[1]),
    )
