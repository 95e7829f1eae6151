"""Random variation of training images: a table of names, each built from Keras layers.

The layers take float32 images in 0-255. Each name has a strength; a family may choose its own.
"""

from collections.abc import Mapping
from typing import Any

from serving.contract.errors import UsageError

# name: (a strength that suits photos, its effect)
AUGMENTATIONS = {
    "flip": (1.0, "mirror left and right"),
    "rotation": (0.05, "rotate, as a share of a full turn"),
    "shift": (0.08, "translate, as a share of the side"),
    "zoom": (0.12, "zoom in and out, as a share"),
    "brightness": (0.15, "change the brightness, as a share of the range"),
    "contrast": (0.2, "change the contrast, as a share"),
    "erasing": (0.3, "erase a rectangle in this share of the images"),
    "randaugment": (0.4, "two operations of RandAugment (Cubuk et al. 2019) of this magnitude"),
}

Strengths = Mapping[str, float]

PHOTO_AUGMENTATION: Strengths = {
    name: AUGMENTATIONS[name][0] for name in ("flip", "rotation", "shift", "zoom", "contrast")
}


def parse_augmentation(names: str | None, family: Strengths) -> Strengths:
    """Parse --augment. None: the family's own; `none`: no augmentation; else a comma-separated list of names.

    Raises UsageError for a name that is not in the table.
    """
    if names is None:
        return family
    wanted = [name.strip() for name in names.split(",") if name.strip() not in ("", "none")]
    unknown = sorted(set(wanted) - set(AUGMENTATIONS))
    if unknown:
        raise UsageError(f"--augment does not know {', '.join(unknown)}.", hint=f"It knows {', '.join(AUGMENTATIONS)}.")
    return {name: family.get(name, AUGMENTATIONS[name][0]) for name in wanted}


def layers_of(strengths: Strengths) -> list[Any]:
    """Build the Keras layers, in the table's order."""
    return [_layer(name, strengths[name]) for name in AUGMENTATIONS if name in strengths]


def _layer(name: str, strength: float) -> Any:
    from keras import layers

    makers = {
        "flip": lambda: layers.RandomFlip("horizontal"),
        "rotation": lambda: layers.RandomRotation(strength, fill_mode="constant"),
        "shift": lambda: layers.RandomTranslation(strength, strength, fill_mode="constant"),
        "zoom": lambda: layers.RandomZoom((-strength, strength), fill_mode="constant"),
        "brightness": lambda: layers.RandomBrightness(strength, value_range=(0, 255)),
        "contrast": lambda: layers.RandomContrast(strength, value_range=(0, 255)),
        "erasing": lambda: layers.RandomErasing(strength, value_range=(0, 255)),
        "randaugment": lambda: layers.RandAugment(value_range=(0, 255), num_ops=2, factor=strength),
    }
    return makers[name]()
