"""data -> train -> evaluate -> card -> write -> verify -> publish: written once, for every family."""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from export.datasets import DataSet
from export.evaluation import metrics_of, predict, probabilities_of
from export.options import Target
from export.progress import say
from export.publishing import check_space, drafted, sweep
from export.saved_model import INPUT, OUTPUT, SIGNATURE, write_version
from export.tensorflow_start import start_tensorflow
from export.training import Trained
from export.verify import require_verified
from serving.contract.card import SCHEMA_VERSION, Calibration, Golden, Input, ModelCard, Output, Training
from serving.contract.golden import GoldenExamples
from serving.contract.image import ImageLimits, Pixels, decode_image
from serving.contract.preprocessing import Preprocessing

GOLDEN_EXAMPLES = 8
GOLDEN_ATOL = 1e-5  # what issue 2 allows between HTTP and Keras; float32 kernels differ by a tenth of it
GOLDEN_SIDE = 640  # pixels; a golden picture is an example, not an archive
BYTES_PER_PARAMETER = 4
SPACE_FACTOR = 1.5  # of the weights: the graph, the golden examples, and something to spare


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a family says; the pipeline does the rest. load: find the data. make: the model, trained or loaded."""

    family: str
    load: Callable[[], DataSet]
    make: Callable[[DataSet], Trained]


def export(recipe: Recipe, target: Target) -> Path:
    """Make a model, publish it as the next version of target.name and return the version's directory.

    Nothing is published unless it has been reloaded and has given the answers that Keras gave.
    """
    for path in sweep(target.models, target.name):
        say(f"removed {path}: an export that was killed had left it")
    with drafted(target.models, target.name) as draft:
        start_tensorflow()
        data = recipe.load()
        trained = recipe.make(data)
        check_space(target.models, int(SPACE_FACTOR * BYTES_PER_PARAMETER * trained.model.count_params()))
        metrics = evaluate(trained, data)
        golden = golden_examples(trained.model, data)
        card = card_of(
            family=recipe.family, name=target.name, data=data, trained=trained, metrics=metrics, golden=len(golden)
        )
        write_version(draft.path, trained.model, card, golden)
        verdict = require_verified(draft.path)
        version = draft.publish()
    say(f"verified: {verdict.detail} within {verdict.max_abs_difference:.1e}")
    click.echo(version)
    return version


def evaluate(trained: Trained, data: DataSet) -> dict[str, float]:
    """The card's metrics, on the test split."""
    started = time.monotonic()
    metrics = metrics_of(predict(trained.model, data.test), data.test.labels)
    say(
        f"test accuracy {metrics['test_accuracy']:.2%} on {len(data.test):,} pictures "
        f"(trained {trained.epochs} epochs in {trained.seconds:.0f} s, tested in {time.monotonic() - started:.0f} s)"
    )
    return metrics


def golden_examples(model: Any, data: DataSet) -> GoldenExamples:
    """A few pictures of the test split, of as many classes as there is room for, and what Keras says of them."""
    pictures = tuple(encode_png(picture) for picture in data.test.pictures(_spread(data)))
    tensors = np.stack([tensor_of(picture, data.preprocessing) for picture in pictures])
    return GoldenExamples(pictures, tensors, probabilities_of(model, tensors))


def tensor_of(picture: bytes, preprocessing: Preprocessing) -> Any:
    """An encoded picture as the model's input: float32 or uint8 (h, w, c)."""
    return preprocessing.apply(decode_image(picture, ImageLimits()))


def encode_png(picture: Pixels) -> bytes:
    """A picture as a PNG file, shrunk where it is larger than an example needs to be. picture: uint8 (H, W, 3)."""
    image = Image.fromarray(picture)
    image.thumbnail((GOLDEN_SIDE, GOLDEN_SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def card_of(
    *, family: str, name: str, data: DataSet, trained: Trained, metrics: dict[str, float], golden: int
) -> ModelCard:
    """What the model says about itself."""
    import keras
    import tensorflow as tf

    preprocessing = data.preprocessing
    return ModelCard(
        schema_version=SCHEMA_VERSION,
        name=name,
        family=family,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        input=Input(
            SIGNATURE,
            INPUT,
            preprocessing.dtype,
            (None, preprocessing.height, preprocessing.width, preprocessing.channels),
        ),
        output=Output(OUTPUT, "probabilities"),
        preprocessing=preprocessing,
        labels=data.labels,
        calibration=Calibration(1.0),
        source=data.source,
        training=Training(
            epochs=trained.epochs,
            parameters=int(trained.model.count_params()),
            seed=trained.seed,
            seconds=round(trained.seconds, 1),
            tensorflow=tf.__version__,
            keras=keras.__version__,
        ),
        metrics=metrics,
        golden=Golden(golden, GOLDEN_ATOL),
    )


def _spread(data: DataSet) -> list[int]:
    """Indices of test pictures: the first of each class in turn, then the second, until there are enough."""
    order = np.argsort(data.test.labels, kind="stable")
    ranks = np.concatenate([np.arange(n) for n in np.bincount(data.test.labels)])
    chosen = order[np.argsort(ranks, kind="stable")][:GOLDEN_EXAMPLES]
    return [int(index) for index in chosen]
