"""Your own model: a .keras or .h5 file, or a SavedModel.

It is wrapped so that it takes uint8 pixels and says what it is. A SavedModel that cannot be wrapped is served as it is:
its card is added as a signature, and the scaling that it wants happens before it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import click
import numpy as np

from export.data.class_names import numbered, read_labels
from export.data.datasets import Places, sha256_of_files
from export.data.example_photos import example_pictures
from export.data.uint8_input import pixels
from export.made import KerasCall, Made, Servable, servable_of_keras
from export.networks.pretrained import TORCH_MEAN, TORCH_STD, Mode, normalised
from export.options import Session, Target, publishing_options
from export.pipeline import Recipe, export
from export.progress import say
from serving.contract.card import Class, Source
from serving.contract.errors import InvalidData, UsageError
from serving.contract.preprocessing import Color, Fit, Polarity, Preprocessing

# name: what the model was trained on, from pixels of 0-255
SCALINGS = {
    "raw": "0 to 255",
    "unit": "0 to 1",
    "tf": "-1 to 1",
    "torch": "z-score of ImageNet",
    "caffe": "BGR minus ImageNet's mean",
}
SUM_TOLERANCE = 1e-3  # how far from one the probabilities of a picture may sum
CHANNELS: dict[int, Color] = {1: "gray", 3: "rgb"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the person said about the model."""

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
class Loaded:
    """A model as it came. call: floats (n, h, w, c), scaled, to its output (n, k). shape: (h, w, c), None where any.

    core: the Keras model, from which kept and summary come; None for a SavedModel.
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
    "--labels", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A name per line, or JSON."
)
@click.option("--preprocess", "scaling", type=click.Choice(tuple(SCALINGS)), default="raw", show_default=True)
@click.option("--scale", type=float, help="Pixels are multiplied by it: 0.00392157 is 1/255. In place of --preprocess.")
@click.option("--image-size", type=click.IntRange(1), help="For a model that takes any size.")
@click.option("--fit", type=click.Choice(("stretch", "crop", "pad", "ink")), default="crop", show_default=True)
@click.option("--polarity", type=click.Choice(("as_is", "dark_background")), default="as_is", show_default=True)
@click.option("--signature", default="serving_default", show_default=True, help="Of a SavedModel.")
@click.option("--as-is", is_flag=True, help="Serve a SavedModel unwrapped.")
@click.option("--examples", type=click.Path(path_type=Path, exists=True, file_okay=False), help="A folder of photos.")
@publishing_options
@click.pass_obj
def command(session: Session, /, *, model: Path, target: Target, **options: Any) -> None:
    """Adopt MODEL: a .keras or .h5 file or a SavedModel's directory.

    \b
    sightline export keras cats.keras --labels cats.txt --preprocess unit --name cats
    """
    export(Recipe("keras", partial(adopted, model, Wanted(**options), session.places())), target)


def adopted(path: Path, wanted: Wanted, places: Places) -> Made:
    """Load the model, wrap it, try it on a few pictures. Raises InvalidData, UsageError."""
    started = time.monotonic()
    loaded = load_saved_model(path, wanted.signature) if path.is_dir() else load_keras_file(path)
    preprocessing = preprocessing_of(loaded, wanted)
    pictures = example_pictures(wanted.examples, places)
    tensors = np.stack([preprocessing.apply(picture) for picture in pictures])
    try:
        servable = wrapped(loaded, wanted, tensors)
    except _CannotWrapError as exc:
        if loaded.signature is None:
            raise InvalidData(f"{path} cannot be asked with {tensors.shape[1:]} pictures: {exc}") from exc
        say(f"{path.name} cannot be wrapped ({exc}): it is served as it is")
        servable = None
    if wanted.as_is or servable is None:
        preprocessing, servable = as_it_is(path, loaded, wanted, preprocessing)
    classes = servable.probabilities(np.stack([preprocessing.apply(pictures[0])])).shape[1]
    return Made(
        servable=servable,
        preprocessing=preprocessing,
        labels=read_labels(wanted.labels, classes) if wanted.labels else _numbered(classes),
        source=Source("weights", path.name, sha256_of_files([p for p in path.rglob("*") if p.is_file()] or [path])),
        examples=pictures,
        seconds=time.monotonic() - started,
    )


def load_keras_file(path: Path) -> Loaded:
    """A .keras or .h5 file. Nothing in it is executed. Raises InvalidData."""
    import keras
    import tensorflow as tf

    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as exc:  # a zip, an HDF5 file, a config of any version: each fails in its own way
        raise InvalidData(f"{path} is not a model that Keras can load: {str(exc).splitlines()[0]}") from exc
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InvalidData(
            f"{path} has {len(model.inputs)} inputs and {len(model.outputs)} outputs; one of each is served"
        )
    return Loaded(
        call=lambda image: tf.cast(model(image, training=False), tf.float32),
        shape=tuple(model.inputs[0].shape[1:]),
        parameters=int(model.count_params()),
        signature=None,
        core=model,
    )


def load_saved_model(path: Path, signature: str) -> Loaded:
    """A SavedModel with a signature of one picture in and one row of numbers out. Raises InvalidData."""
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as exc:
        raise InvalidData(f"{path} is not a SavedModel that can be loaded: {str(exc).splitlines()[0]}") from exc
    known = list(loaded.signatures)
    if signature not in known:
        raise InvalidData(f"{path} has no signature {signature}; it has {', '.join(known) or 'none'}")
    function = loaded.signatures[signature]
    inputs, outputs = function.structured_input_signature[1], function.structured_outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise InvalidData(f"{signature} has {len(inputs)} inputs and {len(outputs)} outputs; one of each is served")
    (name, spec), output = next(iter(inputs.items())), next(iter(outputs))
    variables = getattr(loaded, "variables", None) or function.variables
    return Loaded(
        call=lambda image: tf.cast(function(**{name: tf.cast(image, spec.dtype)})[output], tf.float32),
        kept=(loaded,),
        shape=tuple(spec.shape[1:]),
        parameters=int(sum(np.prod(variable.shape) for variable in variables)),
        summary=f"SavedModel {path.name}, signature {signature}: {name} {spec} -> {output}",
        signature=(signature, name, output),
    )


def preprocessing_of(loaded: Loaded, wanted: Wanted) -> Preprocessing:
    """uint8 pixels of the model's size. Raises InvalidData where its input is no picture, UsageError without a size."""
    if len(loaded.shape) != 3 or loaded.shape[2] not in CHANNELS:
        raise InvalidData(
            f"the model's input is {loaded.shape}; it must be height, width, channels, with 1 or 3 channels",
            hint="Channels come last.",
        )
    height, width = (side or wanted.image_size for side in loaded.shape[:2])
    if not height or not width:
        raise UsageError("the model takes pictures of any size", hint="Say which one with --image-size.")
    color = CHANNELS[loaded.shape[2]]
    return pixels(color, (height, width), wanted.fit, polarity=wanted.polarity)


def wrapped(loaded: Loaded, wanted: Wanted, tensors: Any) -> Servable:
    """The model behind its scaling, before whatever makes its output probabilities."""
    import tensorflow as tf

    def scaled(image: Any) -> Any:
        image = tf.cast(image, tf.float32)
        if wanted.scale is not None:
            return image * wanted.scale
        return image / 255.0 if wanted.scaling == "unit" else normalised(image, cast(Mode, wanted.scaling))

    try:
        output = loaded.call(scaled(tf.constant(tensors)))
    except (ValueError, TypeError, tf.errors.OpError) as exc:
        raise _CannotWrapError(str(exc).splitlines()[0]) from exc
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
    """What turns the model's output into probabilities, judged by a few answers. output: (n, k).

    Rows that sum to one are left alone; one number of 0-1 is the share of the second class; all else are logits.
    Raises InvalidData for an output that is not a row of numbers.
    """
    import tensorflow as tf

    if output.ndim != 2 or not np.isfinite(output).all():
        raise InvalidData(
            f"the model answers {output.shape} with {output.min()} to {output.max()}; a classifier's is (n, k)"
        )
    is_share = bool((output >= 0).all() and (output <= 1).all())
    if output.shape[1] == 1:
        say("one output: taken as the " + ("probability" if is_share else "logit") + " of the second of two classes")
        share = (lambda y: y) if is_share else tf.sigmoid
        return lambda y: tf.concat([1 - share(y), share(y)], axis=1)
    if is_share and np.allclose(output.sum(axis=1), 1, atol=SUM_TOLERANCE):
        return lambda y: y
    say("the model's output does not sum to one: taken as logits, a softmax is added")
    softmax: Callable[[Any], Any] = tf.nn.softmax
    return softmax


def as_it_is(path: Path, loaded: Loaded, wanted: Wanted, seen: Preprocessing) -> tuple[Preprocessing, Servable]:
    """A SavedModel untouched, with its scaling in the card. Raises UsageError for a file."""
    if loaded.signature is None:
        raise UsageError(f"--as-is is for SavedModels; {path} is a file", hint="Leave out --as-is.")
    servable = Servable(
        call=loaded.call,
        kept=(),
        parameters=loaded.parameters,
        summary=loaded.summary,
        copied_from=path,
        signature=loaded.signature,
    )
    return replace(seen, **_float_scaling(wanted, seen.channels)), servable


def _float_scaling(wanted: Wanted, channels: int) -> dict[str, Any]:
    """The card's numbers for float32: (pixel * scale - mean) / std."""
    zero, one = (0.0,) * channels, (1.0,) * channels
    plain: dict[str, Any] = {"dtype": "float32", "scale": 1.0, "mean": zero, "std": one, "channel_order": "rgb"}
    if wanted.scale is not None:
        return {**plain, "scale": wanted.scale}
    return {
        "raw": plain,
        "unit": {**plain, "scale": 1 / 255},
        "tf": {**plain, "scale": 1 / 127.5, "mean": one},
        "torch": {**plain, "scale": 1 / 255, "mean": TORCH_MEAN, "std": TORCH_STD},
        "caffe": {**plain, "mean": (103.939, 116.779, 123.68), "channel_order": "bgr"},
    }[wanted.scaling]


def _numbered(classes: int) -> tuple[Class, ...]:
    say(f"no --labels: the {classes} classes are numbered")
    return numbered(classes)


class _CannotWrapError(Exception):
    """The model does not take what the wrapper gives it."""
