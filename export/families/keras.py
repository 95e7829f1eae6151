"""Adopt a model that exists: a .keras or .h5 file, or a SavedModel.

It is wrapped so that it takes uint8 pixels and carries a card. With `--as-is` a SavedModel is served unchanged: the
card is added as a signature, and the gateway applies the scaling.
"""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from export.adoption.adopt import AdoptionOptions, adopt
from export.adoption.output import MEANINGS, OUTPUTS
from export.adoption.resizing import LIKE, ResizingOptions
from export.adoption.scaling import RANGES, Numbers
from export.options import Environment, Target, publishing_options
from export.pipeline import Recipe, export
from serving.contract.preprocessing import RESAMPLING
from serving.contract.versions import number_of_version

PREPROCESS_HELP = "Scaling that the model was trained with: " + ", ".join(f"{k} ({v})" for k, v in RANGES.items()) + "."
LIKE_HELP = "Resizing of a library: " + ", ".join(f"{name} ({preset.meaning})" for name, preset in LIKE.items()) + "."
OUTPUT_HELP = "What the output is: " + ", ".join(f"{name} ({MEANINGS[name]})" for name in OUTPUTS) + "."
VERIFIED = "the served model answers as the file you gave"
UNMEASURED = (
    "whether its preprocessing is the one it was trained with can only be measured: serve it, then run `sightline "
    "score FOLDER` on photos whose labels you know, in a folder per class"
)


def _numbers(_context: click.Context, option: click.Parameter, value: str | None) -> Numbers | None:
    try:
        return tuple(float(number) for number in value.split(",")) if value else None
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is not a number, or a list such as 0.485,0.456,0.406", param=option
        ) from None


def _size(_context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", value)
    if not found:
        raise click.BadParameter(f"{value!r} is not a number of pixels, or HEIGHTxWIDTH", param=option)
    return int(found[1]), int(found[2] or found[1])


FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command("keras")
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.option("--labels", type=FILE, help="File of class names: one per line, or JSON.")
@click.option("--preprocess", "scaling", type=click.Choice(tuple(RANGES)), help=PREPROCESS_HELP)
@click.option("--scale", type=float, help="Factor of the pixels, such as 0.00392157 for 1/255.")
@click.option("--mean", callback=_numbers, help="Subtracted after --scale: a number, or one per channel: 0.5,0.5,0.5.")
@click.option("--std", callback=_numbers, help="Divided by, after --mean: a number, or one per channel.")
@click.option("--channel-order", type=click.Choice(("rgb", "bgr")), help="Of the model's input.  [default: rgb]")
@click.option("--like", type=click.Choice(tuple(LIKE)), help=LIKE_HELP)
@click.option("--fit", type=click.Choice(("stretch", "crop", "fill", "pad", "ink")), help="[default: crop]")
@click.option(
    "--resize-short-side", type=click.IntRange(1), help="With --fit crop: pixels before the crop, as 256 for 224."
)
@click.option("--interpolation", type=click.Choice(tuple(RESAMPLING)), help="[default: bilinear]")
@click.option("--antialias/--no-antialias", default=None, help="Smooth when shrinking.  [default: antialias]")
@click.option("--polarity", type=click.Choice(("as_is", "dark_background")), default="as_is", show_default=True)
@click.option(
    "--image-size", callback=_size, help="Pixels of a side, or HEIGHTxWIDTH, where the model leaves them open."
)
@click.option("--color", type=click.Choice(("rgb", "gray")), help="Where the model leaves it open.")
@click.option("--output", type=click.Choice(OUTPUTS), help=OUTPUT_HELP)
@click.option("--output-name", help="The output that classifies, of a model with several.")
@click.option("--import", "code", type=FILE, help="Python file of the model's own layers, which is run.")
@click.option("--signature", default="serving_default", show_default=True, help="Signature of the SavedModel.")
@click.option("--as-is", is_flag=True, help="Serve a SavedModel unchanged.")
@click.option(
    "--examples",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of photos for the golden examples.",
)
@publishing_options
@click.pass_obj
def command(environment: Environment, /, *, model: Path, target: Target, **options: Any) -> None:
    """Adopt your own .keras, .h5 or SavedModel.

    MODEL is a .keras or .h5 file, or the directory of a SavedModel. How its pixels are scaled is read from the model
    where it says so; otherwise you have to say it.

    \b
    sightline export keras cats.keras --labels cats.txt --preprocess unit --like keras --name cats
    sightline export keras keras_model.h5 --like teachable-machine --labels labels.txt --name mine
    """
    if click.get_current_context().get_parameter_source("name") is ParameterSource.DEFAULT:
        target = replace(target, name=name_of(model))
    resizing = ResizingOptions(**{name: options.pop(name) for name in ResizingOptions.__dataclass_fields__})
    chosen = AdoptionOptions(resizing=resizing, **options)
    export(Recipe("keras", partial(adopt, model, chosen, environment.places()), VERIFIED, UNMEASURED), target)


def name_of(path: Path) -> str:
    """Name a model after its file, or after its folder; that of a numbered version is the one around it."""
    path = path.resolve()
    is_version = path.is_dir() and number_of_version(path.name) is not None
    plain = path.parent.name if is_version else path.stem if path.is_file() else path.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-.") or "keras"
