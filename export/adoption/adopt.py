"""The adoption of a model: load it, settle its input, scaling and output, wrap it, and say what was found."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from export.adoption.keras_files import load_keras_file
from export.adoption.layout import Layout, layout_of
from export.adoption.loaded_model import LoadedModel
from export.adoption.output import Output, finisher, output_of, require_probabilities, require_rows
from export.adoption.resizing import ResizingOptions, preprocessing_of
from export.adoption.saved_models import load_saved_model
from export.adoption.scaling import Numbers, Scaling, scales_itself, scaling_of, scaling_said
from export.data.class_names import numbered, read_labels
from export.data.datasets import Places, sha256_of_files
from export.data.example_photos import example_photos
from export.progress import say
from export.trained_model import KerasCall, Servable, TrainedModel, servable_of_keras
from serving.contract.card import Source
from serving.contract.errors import InvalidData, UsageError
from serving.contract.preprocessing import ChannelOrder, Color, Preprocessing

TEACHABLE_MACHINE, ITS_LABELS = "teachable-machine", "labels.txt"  # a preset, and the file beside its model


@dataclass(frozen=True, slots=True)
class AdoptionOptions:
    """The values of the command's options: what the file does not say about the model. None: not given."""

    labels: Path | None
    scaling: str | None
    scale: float | None
    mean: Numbers | None
    std: Numbers | None
    channel_order: ChannelOrder | None
    resizing: ResizingOptions
    image_size: tuple[int, int] | None  # (height, width)
    color: Color | None
    output: Output | None
    output_name: str | None
    code: Path | None
    signature: str
    as_is: bool
    examples: Path | None


def adopt(path: Path, options: AdoptionOptions, places: Places) -> TrainedModel:
    """Load the model, wrap it and run it on a few photos. Raises InvalidData, UsageError."""
    started = time.monotonic()
    loaded = load(path, options)
    layout = layout_of(loaded, options.image_size, options.color)
    preprocessing = preprocessing_of(layout, options.resizing)
    scaling = settled_scaling(loaded, layout, options)
    photos = example_photos(options.examples, places)
    before = steps_before(loaded, layout, scaling)
    answers = run(loaded, before, np.stack([preprocessing.apply(photo) for photo in photos]))
    classes = require_rows(answers)
    output, origin = output_of(loaded, options.output, classes)
    finish = finisher(output, classes)
    if output in ("probabilities", "sigmoid"):
        require_probabilities(np.asarray(finish(answers)), origin)
    names = labels_file(path, options)
    labels = read_labels(names, max(classes, 2)) if names else numbered(max(classes, 2))
    source = str(names) if names else f"none: the {len(labels)} classes are numbered (--labels)"
    facts = facts_of(preprocessing, options.resizing, scaling, f"{output} ({origin})", source)
    for name, fact in facts.items():
        say(f"{name}: {fact}")
    if options.as_is:
        if not loaded.takes_integers:
            preprocessing = replace(preprocessing, **scaling.card_fields(layout.channels))
        servable = unchanged(path, loaded, layout, output)
    else:
        servable = wrapped(loaded, before, finish)
    return TrainedModel(
        servable=servable,
        preprocessing=preprocessing,
        labels=labels,
        source=Source("weights", path.name, sha256_of_files([p for p in path.rglob("*") if p.is_file()] or [path])),
        examples=photos,
        seconds=time.monotonic() - started,
        told=facts,
    )


def load(path: Path, options: AdoptionOptions) -> LoadedModel:
    """Load a file or the directory of a SavedModel. Raises InvalidData, UsageError."""
    if path.is_dir():
        return load_saved_model(path, options.signature, options.output_name)
    if options.as_is:
        raise UsageError(f"--as-is is for SavedModels; {path} is a file.", hint="Leave out --as-is.")
    return load_keras_file(path, options.code, options.output_name)


def settled_scaling(loaded: LoadedModel, layout: Layout, options: AdoptionOptions) -> Scaling:
    """Take the scaling that was said, else the preset's, else the model's own. Raises UsageError without any."""
    said = scaling_said(options.scaling, options.scale, options.mean, options.std, options.channel_order)
    by_preset = None if loaded.takes_integers else options.resizing.scaling()
    scaling = scaling_of(loaded, said or by_preset, layout.channels)
    layer = scales_itself(loaded.core)
    if layer and scaling.origin != layer and scaling.scale != 1:
        say(f"warning: {scaling.origin} scales the pixels, and so does {layer}: they are scaled twice")
    return scaling


def steps_before(loaded: LoadedModel, layout: Layout, scaling: Scaling) -> Callable[[Any], Any]:
    """The steps from the card's tensor (n, h, w, c) to what the model takes."""
    import tensorflow as tf

    return lambda image: tf.cast(layout.in_graph(scaling.in_graph(tf.cast(image, tf.float32))), loaded.dtype)


def run(loaded: LoadedModel, before: Callable[[Any], Any], tensors: Any) -> Any:
    """Return the model's own answers. Raises InvalidData where it does not accept the tensors."""
    import tensorflow as tf

    try:
        return np.asarray(loaded.call(before(tf.constant(tensors))))
    except (ValueError, TypeError, tf.errors.OpError) as exc:
        reason = (str(exc).strip().splitlines() or ["it gives no reason"])[0].rstrip(".")
        raise InvalidData(f"The model does not accept images of {tensors.shape[1:]}: {reason}.") from exc


def wrapped(loaded: LoadedModel, before: Callable[[Any], Any], finish: Callable[[Any], Any]) -> Servable:
    """Put the scaling before the model and the conversion to probabilities behind it."""
    if loaded.core is not None:
        return servable_of_keras(KerasCall(loaded.core, before=before, after=finish))
    return Servable(
        call=lambda image: finish(loaded.call(before(image))),
        kept=loaded.kept,
        parameters=loaded.parameters,
        summary=loaded.summary,
    )


def unchanged(path: Path, loaded: LoadedModel, layout: Layout, output: Output) -> Servable:
    """Keep the SavedModel as it is: the gateway scales. Raises UsageError where it must be wrapped."""
    obstacle = (
        f"its input is not (n, height, width, channels) but {layout.form.replace('_', ' ')}"
        if layout.form != "channels_last"
        else f"its input is {loaded.dtype}"
        if loaded.dtype not in ("float32", "uint8")
        else f"its output is {output}, not probabilities"
        if output != "probabilities"
        else ""
    )
    if obstacle:
        raise UsageError(
            f"{path} cannot be served unchanged: {obstacle}.", hint="Leave out --as-is: the model is then wrapped."
        )
    return Servable(
        call=loaded.call,
        kept=(),
        parameters=loaded.parameters,
        summary=loaded.summary,
        copied_from=path,
        signature=loaded.signature,
    )


def labels_file(path: Path, options: AdoptionOptions) -> Path | None:
    """The file of class names: the one that was named, else Teachable Machine's beside its model; None without."""
    beside = path.with_name(ITS_LABELS)
    is_there = options.resizing.like == TEACHABLE_MACHINE and beside.is_file()
    return options.labels or (beside if is_there else None)


def facts_of(
    preprocessing: Preprocessing, resizing: ResizingOptions, scaling: Scaling, output: str, labels: str
) -> dict[str, str]:
    """Describe what was told and found, each with its origin, for the author to check."""
    short = f" of {preprocessing.resize_short_side}" if preprocessing.resize_short_side else ""
    smooth = "antialiased" if preprocessing.antialias else "not antialiased"
    origin = f"--like {resizing.like}" if resizing.like else "as said" if resizing.was_said() else "not said; --like"
    size = f"{preprocessing.color}, {preprocessing.height} x {preprocessing.width}, fit {preprocessing.fit}{short}"
    polarity = f", polarity {preprocessing.polarity}" if preprocessing.polarity != "as_is" else ""
    return {
        "images": f"{size}, {preprocessing.interpolation}, {smooth}{polarity} ({origin})",
        "scaling": str(scaling),
        "output": output,
        "labels": labels,
    }
