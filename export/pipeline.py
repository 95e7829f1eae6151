"""The export of every family: make the model -> served form -> card -> write -> verify -> publish -> report."""

import importlib.util
import io
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
import numpy as np
from PIL import Image
from sightline.client import DEFAULT_URL

from export.artifact.publishing import check_space, draft_version
from export.artifact.saved_model import INPUT, OUTPUT, SIGNATURE, write_version
from export.artifact.served_form import ATOL, FLOAT32, to_served_form
from export.artifact.tflite import write_tflite
from export.artifact.verify import require_verified
from export.options import Target
from export.progress import PROGRESS_FILE, say
from export.report.page import write_report, write_report_again
from export.trained_model import TrainedModel
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
from serving.contract.served_at import read_address
from serving.contract.versions import GOLDEN_DIR, version_dirs
from serving.runtimes.tensorflow_start import start_tensorflow

GOLDEN_SIDE = 640  # pixels; larger golden images are shrunk
BYTES_PER_PARAMETER = 4
SPACE_FACTOR = 2.2  # times the weights: SavedModel, model.tflite, the golden examples and a margin
SMALLEST_SPACE = 20_000_000  # bytes that must be free before training begins


@dataclass(frozen=True, slots=True)
class Recipe:
    """The part of an export that differs between families. make: trains or loads the model.

    verified: the claim that the golden examples prove. unmeasured: what they do not prove, with the way to measure it;
    "" where nothing is left open.
    """

    family: str
    make: Callable[[], TrainedModel]
    verified: str = "the served model answers as Keras did"
    unmeasured: str = ""


def export(recipe: Recipe, target: Target) -> Path:
    """Make a model and publish it as the next version of target.name. Returns the version's directory.

    A version is published only after it has been reloaded from disk and has given the answers that Keras gave.
    """
    if target.report_only:
        return report_again(target)
    require_tensorflow()
    with draft_version(target.models, target.name) as draft:
        check_space(target.models, SMALLEST_SPACE)
        PROGRESS_FILE.tell("loading TensorFlow")
        start_tensorflow()
        PROGRESS_FILE.tell("reading data and weights")
        trained = recipe.make()
        PROGRESS_FILE.tell("writing and verifying")
        check_space(target.models, int(SPACE_FACTOR * BYTES_PER_PARAMETER * trained.servable.parameters))
        golden = golden_examples(trained)
        trained = to_served_form(trained, golden, target.precision)
        card = make_card(recipe.family, target.name, trained, Golden(len(golden), ATOL[target.precision]))
        write_version(draft.path, trained.servable, card, golden, trained.notice)
        if target.tflite and target.precision == FLOAT32 and not trained.servable.copied_from:
            write_tflite(draft.path, [card.input.signature, CARD_SIGNATURE], proof_of(card, golden))
        verdict = require_verified(draft.path)
        version = draft.publish()
    say(f"verified: {recipe.verified} on {verdict.n} images, within {verdict.max_abs_difference:.1e}")
    if recipe.unmeasured:
        say(recipe.unmeasured)
    if target.reports:
        folder = target.reports / target.name / version.name
        say(f"report: {write_report(folder, card, trained, golden.probabilities)}")
    click.echo(version)
    say(how_to_try(target.models, version))
    return version


def require_tensorflow() -> None:
    """Raise UsageError where TensorFlow is not installed."""
    if importlib.util.find_spec("tensorflow") is None:
        raise UsageError(
            "An export needs TensorFlow, which is not installed.",
            hint="Install the extra `tensorflow`: pip install 'sightline-serving[tensorflow] @ file:///path/to/clone'.",
        )


def how_to_try(models: Path, version: Path) -> str:
    """Tell where the version is served, or how to serve it, and the request that sends it a golden example."""
    picture = next(iter(sorted((version / GOLDEN_DIR).glob("*.png"))))
    url = read_address(models)
    curl = f"curl -F image=@{shlex.quote(str(picture))} {url or DEFAULT_URL}/predict/{version.parent.name}"
    if url:
        return f"served at {url}; try: {curl}"
    return f"to serve it: sightline serve --models {shlex.quote(str(models))}; then try: {curl}"


def report_again(target: Target) -> Path:
    """Write the report of the newest version again from the numbers that its export stored. Returns the page."""
    versions = version_dirs(target.models / target.name)
    if not versions or not target.reports:
        raise UsageError(
            f"{target.models / target.name} holds no version.", hint="Export one first, without --report-only."
        )
    page = write_report_again(target.reports / target.name / versions[-1].name)
    click.echo(page)
    return page


def golden_examples(trained: TrainedModel) -> GoldenExamples:
    """Preprocess the example images and run the model on them."""
    pictures = tuple(encode_png(picture) for picture in trained.examples)
    tensors = np.stack([trained.preprocessing.apply(decode_image(picture, ImageLimits())) for picture in pictures])
    return GoldenExamples(pictures, tensors, trained.servable.probabilities(tensors))


def encode_png(picture: Pixels) -> bytes:
    """Encode an image as PNG, shrunk to at most GOLDEN_SIDE. picture: uint8 (H, W, 3)."""
    image = Image.fromarray(picture)
    image.thumbnail((GOLDEN_SIDE, GOLDEN_SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def make_card(family: str, name: str, trained: TrainedModel, golden: Golden) -> ModelCard:
    """Write the card of a model."""
    import keras
    import tensorflow as tf

    preprocessing = trained.preprocessing
    signature, tensor, output = trained.servable.signature or (SIGNATURE, INPUT, OUTPUT)
    shape = (None, preprocessing.height, preprocessing.width, preprocessing.channels)
    return ModelCard(
        schema_version=SCHEMA_VERSION,
        name=name,
        family=family,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        input=Input(signature, tensor, preprocessing.dtype, shape),
        output=Output(output, "probabilities"),
        preprocessing=preprocessing,
        labels=trained.labels,
        calibration=Calibration(trained.temperature),
        source=trained.source,
        training=Training(
            epochs=trained.epochs,
            parameters=trained.servable.parameters,
            seed=trained.seed,
            seconds=round(trained.seconds, 1),
            tensorflow=tf.__version__,
            keras=keras.__version__,
        ),
        metrics=trained.metrics,
        golden=golden,
    )
