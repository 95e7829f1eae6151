"""make (load, train, judge) -> served form -> card -> write -> verify -> publish -> report: once, for every family."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
import numpy as np
from PIL import Image

from export.artifact.publishing import check_space, drafted, latest_version, sweep
from export.artifact.saved_model import INPUT, OUTPUT, SIGNATURE, write_version
from export.artifact.served_form import ATOL, FLOAT32, served_form
from export.artifact.tflite import write_tflite
from export.artifact.verify import require_verified
from export.made import Made
from export.options import Target
from export.progress import say
from export.report.page import write_report, write_report_again
from serving.contract.card import (
    CARD_SIGNATURE,
    SCHEMA_VERSION,
    Calibration,
    Golden,
    Input,
    ModelCard,
    Output,
    Training,
)
from serving.contract.errors import UsageError
from serving.contract.golden import GoldenExamples, proof_of
from serving.contract.image import Pixels, decode_image
from serving.contract.image_limits import ImageLimits
from serving.runtimes.tensorflow_start import start_tensorflow

GOLDEN_SIDE = 640  # pixels; a golden picture is an example, not an archive
BYTES_PER_PARAMETER = 4
SPACE_FACTOR = 2.2  # of the weights: SavedModel, model.tflite, the golden examples, and something to spare
SMALLEST_SPACE = 20_000_000  # bytes; less than this is not worth beginning with


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a family says; the pipeline does the rest. make: the model, trained or loaded, and its story."""

    family: str
    make: Callable[[], Made]


def export(recipe: Recipe, target: Target) -> Path:
    """Make a model, publish it as the next version of target.name and return the version's directory.

    Nothing is published unless it has been reloaded and has given the answers that Keras gave.
    """
    if target.report_only:
        return report_again(target)
    for path in sweep(target.models, target.name):
        say(f"removed {path}: an export that was killed had left it")
    with drafted(target.models, target.name) as draft:
        check_space(target.models, SMALLEST_SPACE)
        start_tensorflow()
        made = recipe.make()
        check_space(target.models, int(SPACE_FACTOR * BYTES_PER_PARAMETER * made.servable.parameters))
        golden = golden_examples(made)
        made = served_form(made, golden, target.precision)
        card = card_of(recipe.family, target.name, made, Golden(len(golden), ATOL[target.precision]))
        write_version(draft.path, made.servable, card, golden)
        if target.tflite and target.precision == FLOAT32 and not made.servable.copied_from:
            write_tflite(draft.path, [card.input.signature, CARD_SIGNATURE], proof_of(card, golden))
        verdict = require_verified(draft.path)
        version = draft.publish()
    say(f"verified: {verdict.detail} within {verdict.max_abs_difference:.1e}")
    if target.reports:
        say(f"report: {write_report(target.reports / target.name / version.name, card, made)}")
    click.echo(version)
    return version


def report_again(target: Target) -> Path:
    """Write the report of the newest version anew from the numbers that its export stored. Returns the page."""
    shelf = target.models / target.name
    number = latest_version(shelf) if shelf.is_dir() else 0
    if not number or not target.reports:
        raise UsageError(f"{shelf} holds no version", hint="Export one first, without --report-only.")
    page = write_report_again(target.reports / target.name / str(number))
    click.echo(page)
    return page


def golden_examples(made: Made) -> GoldenExamples:
    """A few real pictures, the tensors that preprocessing makes of them, and what the model says of those."""
    pictures = tuple(encode_png(picture) for picture in made.examples)
    tensors = np.stack([made.preprocessing.apply(decode_image(picture, ImageLimits())) for picture in pictures])
    return GoldenExamples(pictures, tensors, made.servable.probabilities(tensors))


def encode_png(picture: Pixels) -> bytes:
    """A picture as a PNG file, shrunk where it is larger than an example needs to be. picture: uint8 (H, W, 3)."""
    image = Image.fromarray(picture)
    image.thumbnail((GOLDEN_SIDE, GOLDEN_SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def card_of(family: str, name: str, made: Made, golden: Golden) -> ModelCard:
    """What the model says about itself."""
    import keras
    import tensorflow as tf

    preprocessing = made.preprocessing
    signature, tensor, output = made.servable.signature or (SIGNATURE, INPUT, OUTPUT)
    shape = (None, preprocessing.height, preprocessing.width, preprocessing.channels)
    return ModelCard(
        schema_version=SCHEMA_VERSION,
        name=name,
        family=family,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        input=Input(signature, tensor, preprocessing.dtype, shape),
        output=Output(output, "probabilities"),
        preprocessing=preprocessing,
        labels=made.labels,
        calibration=Calibration(made.temperature),
        source=made.source,
        training=Training(
            epochs=made.epochs,
            parameters=made.servable.parameters,
            seed=made.seed,
            seconds=round(made.seconds, 1),
            tensorflow=tf.__version__,
            keras=keras.__version__,
        ),
        metrics=made.metrics,
        golden=golden,
    )
