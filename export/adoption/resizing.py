"""The resizing that a model was trained with: presets of `--like`, each proven against the library of its name."""

import math
from dataclasses import dataclass, replace
from typing import Any

from export.adoption.layout import Layout
from export.adoption.scaling import NAMED, Scaling
from export.data.uint8_input import uint8_preprocessing
from serving.contract.errors import InvalidCard, UsageError
from serving.contract.preprocessing import Fit, Interpolation, Polarity, Preprocessing

CROP_SHARE = 0.875  # of the short side that torchvision's and timm's presets keep: 224 of 256


@dataclass(frozen=True, slots=True)
class Preset:
    """The resizing of a library. has_short_side: the short side gets more pixels than are kept. scaling: its name."""

    fit: Fit
    interpolation: Interpolation
    antialias: bool
    meaning: str
    has_short_side: bool = False
    scaling: str = ""


# Sources, in order: keras.utils.image_dataset_from_directory; keras.utils.load_img, which ImageDataGenerator uses;
# torchvision.transforms._presets.ImageClassification; timm.data.create_transform with its default configuration;
# the Python code that Teachable Machine shows beside the download.
LIKE = {
    "keras": Preset("stretch", "bilinear", False, "image_dataset_from_directory"),
    "keras-generator": Preset("stretch", "nearest", False, "ImageDataGenerator.flow_from_directory"),
    "torchvision": Preset("crop", "bilinear", True, "the presets of torchvision's weights", True, "torch"),
    "timm": Preset("crop", "bicubic", True, "timm's default configuration", True, "torch"),
    "teachable-machine": Preset("fill", "lanczos", True, "Teachable Machine's Keras code", False, "tf"),
}
UNSAID = Preset("crop", "bilinear", True, "Sightline's own")


@dataclass(frozen=True, slots=True)
class ResizingOptions:
    """The options of resizing; None where they were not given."""

    like: str | None
    fit: Fit | None
    interpolation: Interpolation | None
    antialias: bool | None
    resize_short_side: int | None
    polarity: Polarity

    @property
    def preset(self) -> Preset:
        """The preset of --like, or Sightline's own resizing."""
        return LIKE[self.like] if self.like else UNSAID

    def scaling(self) -> Scaling | None:
        """The scaling that the preset brings along; None where it has none."""
        return replace(NAMED[self.preset.scaling], origin=f"--like {self.like}") if self.preset.scaling else None

    def was_said(self) -> bool:
        """Tell whether the author said anything about resizing."""
        return bool(self.like or self.fit or self.interpolation or self.antialias is not None or self.resize_short_side)


def preprocessing_of(layout: Layout, options: ResizingOptions) -> Preprocessing:
    """Combine the preset with the options beside it. Raises UsageError where they do not go together."""
    preset = options.preset
    fit = options.fit or preset.fit
    short_side = options.resize_short_side
    if short_side is None and preset.has_short_side and fit == "crop":
        short_side = math.floor(max(layout.height, layout.width) / CROP_SHARE)
    interpolation = options.interpolation or preset.interpolation
    antialias = preset.antialias if options.antialias is None else options.antialias
    changes: dict[str, Any] = {"resize_short_side": short_side, "interpolation": interpolation, "antialias": antialias}
    plain = uint8_preprocessing(layout.color, (layout.height, layout.width), "stretch", polarity=options.polarity)
    try:
        return replace(plain, fit=fit, **changes)
    except InvalidCard as exc:
        raise UsageError(f"The resizing cannot be done: {exc.detail.removeprefix('preprocessing: ')}.") from exc
