"""How a training picture is varied, each time anew: a table of names, each to Keras layers.

The layers see float32 pictures in 0-255. A number is the strength; a family chooses its own.
"""

from collections.abc import Mapping
from typing import Any

from serving.contract.errors import UsageError

# name: (a strength that suits photos, what it does)
AUGMENTATIONS = {
    "flip": (1.0, "mirror left and right"),
    "rotation": (0.05, "turn, as a share of a full turn"),
    "shift": (0.08, "move, as a share of the side"),
    "zoom": (0.12, "shrink and enlarge, as a share"),
    "brightness": (0.15, "lighten and darken, as a share of the range"),
    "contrast": (0.2, "flatten and steepen, as a share"),
    "erasing": (0.3, "hide a rectangle, in this share of the pictures"),
    "randaugment": (0.4, "two operations of RandAugment (Cubuk et al. 2019), of this magnitude"),
}

Strengths = Mapping[str, float]


def chosen(family: Strengths, names: str | None) -> Strengths:
    """What --augment means. None: the family's own; `none`: nothing; else a list with commas, each of the table.

    Raises UsageError for a name that is not in the table.
    """
    if names is None:
        return family
    wanted = [name.strip() for name in names.split(",") if name.strip() not in ("", "none")]
    unknown = sorted(set(wanted) - set(AUGMENTATIONS))
    if unknown:
        raise UsageError(f"--augment does not know {', '.join(unknown)}", hint=f"It knows {', '.join(AUGMENTATIONS)}.")
    return {name: family.get(name, AUGMENTATIONS[name][0]) for name in wanted}


def layers_of(strengths: Strengths) -> list[Any]:
    """The Keras layers, in the table's order."""
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
