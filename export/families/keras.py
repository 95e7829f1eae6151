"""Adopt a model that exists: a .keras or .h5 file, or a SavedModel.

It is wrapped so that it takes uint8 pixels and carries a card. A SavedModel that cannot be wrapped is served unchanged:
the card is added as a signature, and the gateway applies the scaling.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
from click.core import ParameterSource

from export.data.class_names import numbered, read_labels
from export.data.datasets import Places, sha256_of_files
from export.data.example_photos import example_photos
from export.data.uint8_input import uint8_preprocessing
from export.networks.pretrained import TORCH_MEAN, TORCH_STD, Mode, normalised
from export.options import Environment, Target, publishing_options
from export.pipeline import Recipe, export
from export.progress import say
from export.trained_model import KerasCall, Servable, TrainedModel, servable_of_keras
from serving.contract.card import Class, Source
from serving.contract.errors import InvalidData, UsageError
from serving.contract.preprocessing import Color, Fit, Polarity, Preprocessing
from serving.contract.versions import number_of_version

# name: the range of the pixels that the model was trained on
SCALINGS = {
    "raw": "0 to 255",
    "unit": "0 to 1",
    "tf": "-1 to 1",
    "torch": "z-score of ImageNet",
    "caffe": "BGR minus ImageNet's mean",
}
PREPROCESS_HELP = (
    "Scaling that the model was trained with: " + ", ".join(f"{k} ({v})" for k, v in SCALINGS.items()) + "."
)
SUM_TOLERANCE = 1e-3  # deviation from one in the sum of an image's probabilities
CHANNELS: dict[int, Color] = {1: "gray", 3: "rgb"}


@dataclass(frozen=True, slots=True)
class AdoptionOptions:
    """The values of the command's options: what the file does not say about the model."""

    labels: Path | None
    scaling: str
    scale: float | None
    image_size: int | None
    fit: Fit
    polarity: Polarity
    signature: str
    as_is: bool
    examples: Path | None


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model as it was loaded. call: from scaled floats (n, h, w, c) to its output (n, k).

    shape: (h, w, c), None for a side of any length. core: the Keras model, from which kept and summary come; None for a
    SavedModel.
    """

    call: Callable[[Any], Any]
    shape: tuple[int | None, ...]
    parameters: int
    signature: tuple[str, str, str] | None  # of a SavedModel: its signature, input, output
    kept: tuple[Any, ...] = ()
    summary: str = ""
    core: Any = None


@click.command("keras")
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--labels",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File of class names: one per line, or JSON.",
)
@click.option(
    "--preprocess",
    "scaling",
    type=click.Choice(tuple(SCALINGS)),
    default="raw",
    show_default=True,
    help=PREPROCESS_HELP,
)
@click.option("--scale", type=float, help="Factor of the pixels, such as 0.00392157 for 1/255; replaces --preprocess.")
@click.option("--image-size", type=click.IntRange(1), help="Pixels of a side, for a model that takes any size.")
@click.option("--fit", type=click.Choice(("stretch", "crop", "pad", "ink")), default="crop", show_default=True)
@click.option("--polarity", type=click.Choice(("as_is", "dark_background")), default="as_is", show_default=True)
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

    MODEL is a .keras or .h5 file, or the directory of a SavedModel.

    \b
    sightline export keras cats.keras --labels cats.txt --preprocess unit --name cats
    """
    if click.get_current_context().get_parameter_source("name") is ParameterSource.DEFAULT:
        target = replace(target, name=name_of(model))
    export(Recipe("keras", partial(adopt, model, AdoptionOptions(**options), environment.places())), target)


def name_of(path: Path) -> str:
    """Name a model after its file, or after its folder; that of a numbered version is the one around it."""
    path = path.resolve()
    is_version = path.is_dir() and number_of_version(path.name) is not None
    plain = path.parent.name if is_version else path.stem if path.is_file() else path.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-.") or "keras"


def adopt(path: Path, options: AdoptionOptions, places: Places) -> TrainedModel:
    """Load the model, wrap it and run it on a few photos. Raises InvalidData, UsageError."""
    started = time.monotonic()
    loaded = load_saved_model(path, options.signature) if path.is_dir() else load_keras_file(path)
    preprocessing = preprocessing_of(loaded, options)
    photos = example_photos(options.examples, places)
    tensors = np.stack([preprocessing.apply(photo) for photo in photos])
    try:
        servable = wrap(loaded, options, tensors)
    except CannotWrap as exc:
        if loaded.signature is None:
            raise InvalidData(f"{path} does not accept images of {tensors.shape[1:]}: {exc}.") from exc
        say(f"{path.name} cannot be wrapped ({exc}): it is served unchanged")
        servable = None
    if options.as_is or servable is None:
        preprocessing, servable = serve_unchanged(path, loaded, options, preprocessing)
    classes = servable.probabilities(np.stack([preprocessing.apply(photos[0])])).shape[1]
    return TrainedModel(
        servable=servable,
        preprocessing=preprocessing,
        labels=read_labels(options.labels, classes) if options.labels else _numbered(classes),
        source=Source("weights", path.name, sha256_of_files([p for p in path.rglob("*") if p.is_file()] or [path])),
        examples=photos,
        seconds=time.monotonic() - started,
        told=told_by(options),
    )


def told_by(options: AdoptionOptions) -> dict[str, str]:
    """Describe in words what the options say about the model and its file does not."""
    scaling = f"{options.scaling}: {SCALINGS[options.scaling]}" if options.scale is None else f"times {options.scale}"
    return {
        "scaling of the pixels": scaling,
        "size": f"{options.image_size} x {options.image_size}" if options.image_size else "as the file says",
        "fit": options.fit,
        "polarity": options.polarity.replace("_", " "),
        "labels": options.labels.name if options.labels else "none: the classes are numbered",
    }


def load_keras_file(path: Path) -> LoadedModel:
    """Load a .keras or .h5 file without executing code in it. Raises InvalidData."""
    import keras
    import tensorflow as tf

    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as exc:  # a zip, an HDF5 file, a config of any version: each fails with its own exception
        raise InvalidData(f"{path} is not a model that Keras can load: {str(exc).splitlines()[0]}.") from exc
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InvalidData(
            f"{path} has {len(model.inputs)} inputs and {len(model.outputs)} outputs; only models with one of each can "
            "be served."
        )
    return LoadedModel(
        call=lambda image: tf.cast(model(image, training=False), tf.float32),
        shape=tuple(model.inputs[0].shape[1:]),
        parameters=int(model.count_params()),
        signature=None,
        core=model,
    )


def load_saved_model(path: Path, signature: str) -> LoadedModel:
    """Load a SavedModel whose signature has one input and one output. Raises InvalidData."""
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as exc:
        raise InvalidData(f"{path} is not a SavedModel that can be loaded: {str(exc).splitlines()[0]}.") from exc
    known = list(loaded.signatures)
    if signature not in known:
        raise InvalidData(
            f"{path} has no signature {signature}.", hint=f"Its signatures are: {', '.join(known) or 'none'}."
        )
    function = loaded.signatures[signature]
    inputs, outputs = function.structured_input_signature[1], function.structured_outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise InvalidData(
            f"{signature} has {len(inputs)} inputs and {len(outputs)} outputs; only signatures with one of each can be "
            "served."
        )
    (name, spec), output = next(iter(inputs.items())), next(iter(outputs))
    if spec.shape.rank is None:
        raise InvalidData(
            f"{path} does not say the shape of its input {name}; it must be height, width, channels.",
            hint='Save it with a signature that does: docs/my-model.md, "The file".',
        )
    variables = getattr(loaded, "variables", None) or function.variables
    return LoadedModel(
        call=lambda image: tf.cast(function(**{name: tf.cast(image, spec.dtype)})[output], tf.float32),
        kept=(loaded,),
        shape=tuple(spec.shape[1:]),
        parameters=int(sum(np.prod(variable.shape) for variable in variables)),
        summary=f"SavedModel {path.name}, signature {signature}: {name} {spec} -> {output}",
        signature=(signature, name, output),
    )


def preprocessing_of(loaded: LoadedModel, options: AdoptionOptions) -> Preprocessing:
    """Resize to the model's input. Raises InvalidData where the input is not an image, UsageError without a size."""
    if len(loaded.shape) != 3 or loaded.shape[2] not in CHANNELS:
        raise InvalidData(
            f"The model's input is {loaded.shape}; it must be height, width, channels, with 1 or 3 channels.",
            hint="Channels must be the last axis.",
        )
    height, width = (side or options.image_size for side in loaded.shape[:2])
    if not height or not width:
        raise UsageError("The model takes images of any size.", hint="Choose one with --image-size.")
    color = CHANNELS[loaded.shape[2]]
    return uint8_preprocessing(color, (height, width), options.fit, polarity=options.polarity)


def wrap(loaded: LoadedModel, options: AdoptionOptions, tensors: Any) -> Servable:
    """Put the scaling before the model and the conversion to probabilities behind it. Raises CannotWrap."""
    import tensorflow as tf

    def scaled(image: Any) -> Any:
        image = tf.cast(image, tf.float32)
        if options.scale is not None:
            return image * options.scale
        return image / 255.0 if options.scaling == "unit" else normalised(image, cast(Mode, options.scaling))

    try:
        output = loaded.call(scaled(tf.constant(tensors)))
    except (ValueError, TypeError, tf.errors.OpError) as exc:
        raise CannotWrap(str(exc).splitlines()[0]) from exc
    finish = finisher(np.asarray(output))
    if loaded.core is not None:
        return servable_of_keras(KerasCall(loaded.core, before=scaled, after=finish))
    return Servable(
        call=lambda image: finish(loaded.call(scaled(image))),
        kept=loaded.kept,
        parameters=loaded.parameters,
        summary=loaded.summary,
    )


def finisher(output: Any) -> Callable[[Any], Any]:
    """Choose the conversion of the model's output to probabilities from a few answers. output: (n, k).

    Rows that sum to one are kept; a single number of 0-1 is the probability of the second of two classes; anything else
    is taken for logits. Raises InvalidData for an output that is not a row of finite numbers per image.
    """
    import tensorflow as tf

    if output.ndim != 2 or not np.isfinite(output).all():
        raise InvalidData(
            f"The model's output has the shape {output.shape} and values of {output.min()} to {output.max()}; "
            "a classifier's is (n, k) with finite values."
        )
    is_probability = bool((output >= 0).all() and (output <= 1).all())
    if output.shape[1] == 1:
        kind = "probability" if is_probability else "logit"
        say(f"the model has one output: it is taken for the {kind} of the second of two classes")
        second = (lambda y: y) if is_probability else tf.sigmoid
        return lambda y: tf.concat([1 - second(y), second(y)], axis=1)
    if is_probability and np.allclose(output.sum(axis=1), 1, atol=SUM_TOLERANCE):
        return lambda y: y
    say("the model's output does not sum to one: it is taken for logits, and a softmax is added")
    softmax: Callable[[Any], Any] = tf.nn.softmax
    return softmax


def serve_unchanged(
    path: Path, loaded: LoadedModel, options: AdoptionOptions, seen: Preprocessing
) -> tuple[Preprocessing, Servable]:
    """Keep the SavedModel unchanged and put the scaling into the card. Raises UsageError for a Keras file."""
    if loaded.signature is None:
        raise UsageError(f"--as-is is for SavedModels; {path} is a file.", hint="Leave out --as-is.")
    servable = Servable(
        call=loaded.call,
        kept=(),
        parameters=loaded.parameters,
        summary=loaded.summary,
        copied_from=path,
        signature=loaded.signature,
    )
    return replace(seen, **_float_scaling(options, seen.channels)), servable


def _float_scaling(options: AdoptionOptions, channels: int) -> dict[str, Any]:
    """The card's numbers for a float32 input: (pixel * scale - mean) / std."""
    zero, one = (0.0,) * channels, (1.0,) * channels
    plain: dict[str, Any] = {"dtype": "float32", "scale": 1.0, "mean": zero, "std": one, "channel_order": "rgb"}
    if options.scale is not None:
        return {**plain, "scale": options.scale}
    return {
        "raw": plain,
        "unit": {**plain, "scale": 1 / 255},
        "tf": {**plain, "scale": 1 / 127.5, "mean": one},
        "torch": {**plain, "scale": 1 / 255, "mean": TORCH_MEAN, "std": TORCH_STD},
        "caffe": {**plain, "mean": (103.939, 116.779, 123.68), "channel_order": "bgr"},
    }[options.scaling]


def _numbered(classes: int) -> tuple[Class, ...]:
    say(f"without --labels, the {classes} classes are numbered")
    return numbered(classes)


class CannotWrap(Exception):
    """The model does not accept the tensors of the wrapper."""
