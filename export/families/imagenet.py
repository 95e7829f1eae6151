"""A classifier with its pretrained weights: the thousand classes of ImageNet."""

import time
from functools import partial
from pathlib import Path

import click
import numpy as np

from export.data.class_names import imagenet_classes, numbered, read_labels
from export.data.datasets import Places
from export.data.example_photos import example_photos
from export.data.folders import FileSplit
from export.networks.pretrained import (
    BACKBONES,
    LITE,
    classifier,
    default_arch,
    find_weights,
    notice_of,
    source_of,
)
from export.options import Environment, Target, publishing_options
from export.pipeline import Recipe, export
from export.progress import say
from export.trained_model import Evaluated, KerasCall, TrainedModel, servable_of_keras
from export.training.evaluation import metrics_of, predict
from serving.contract.card import Class

CLASSES = 1000
INDEX_FILE = "imagenet_class_index.json"
PREFERRED = next(iter(BACKBONES))  # without --arch, where its weights are on this machine


@click.command("imagenet")
@click.option(
    "--arch",
    type=click.Choice(tuple(BACKBONES)),
    help=f"By default {PREFERRED}, if its weights are on this machine, else {LITE}, whose weights are installed.",
)
@click.option("--weights", default="imagenet", show_default=True, help="imagenet, none (random), or a FILE.")
@click.option("--labels", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="File of class names.")
@click.option("--classes", type=click.IntRange(2), default=CLASSES, show_default=True)
@click.option(
    "--image-size",
    type=click.IntRange(32),
    help="Pixels of a side; by default the size that the weights were trained at.",
)
@click.option(
    "--examples",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of photos for the golden examples.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Of the random weights of --weights none.")
@publishing_options
@click.pass_obj
def command(
    environment: Environment,
    *,
    target: Target,
    arch: str | None,
    weights: str,
    labels: Path | None,
    classes: int,
    image_size: int | None,
    examples: Path | None,
    seed: int,
) -> None:
    """A pretrained classifier of photos: the thousand classes of ImageNet.

    \b
    sightline export imagenet
    sightline export imagenet --arch efficientnetlite0
    sightline export imagenet --arch mobilenetv2 --weights mobilenet_v2.weights.h5 --labels class_index.json
    """
    places = environment.places()
    arch = arch or default_arch(PREFERRED, weights, places)
    make = partial(
        load_pretrained,
        places,
        arch=arch,
        weights=weights,
        labels=labels,
        classes=classes,
        size=image_size or BACKBONES[arch].size,
        examples=examples,
        seed=seed,
    )
    export(Recipe("imagenet", make), target)


def load_pretrained(
    places: Places,
    *,
    arch: str,
    weights: str,
    labels: Path | None,
    classes: int,
    size: int,
    examples: Path | None,
    seed: int,
) -> TrainedModel:
    """Build the network, load its weights, and evaluate it on the photos of SIGHTLINE_DATA/imagenet."""
    import keras

    started = time.monotonic()
    found = find_weights(arch, weights, places)
    names = class_names(labels, classes, places)
    keras.utils.set_random_seed(seed)
    preprocessing = BACKBONES[arch].preprocessing_at(size)
    servable = servable_of_keras(KerasCall(classifier(arch, size, classes, found)))
    photos = _photos(places, names)
    split = FileSplit(list(photos), np.array(list(photos.values()), np.int64), preprocessing) if photos else None
    evaluated = Evaluated(split, predict(servable, split)) if split and found else None
    metrics = metrics_of(evaluated.probabilities, evaluated.split.labels) if evaluated else {}
    if evaluated:
        say(f"accuracy {metrics['test_accuracy']:.1%} on {len(evaluated.split)} photos")
    return TrainedModel(
        servable=servable,
        preprocessing=preprocessing,
        labels=names,
        source=source_of(arch, found),
        notice=notice_of(arch, found),
        examples=example_photos(examples, places),
        seed=seed,
        seconds=time.monotonic() - started,
        metrics=metrics,
        test=evaluated,
    )


def class_names(path: Path | None, classes: int, places: Places) -> tuple[Class, ...]:
    """Read the class names from `path`; of a thousand classes, those of SIGHTLINE_DATA, else ImageNet's.

    Without a path, another number of classes is numbered.
    """
    if path:
        return read_labels(path, classes)
    if classes != CLASSES:
        return numbered(classes)
    own = places.root / "imagenet" / INDEX_FILE if places.root else None
    return read_labels(own, classes) if own and own.is_file() else imagenet_classes()


def _photos(places: Places, names: tuple[Class, ...]) -> dict[Path, int]:
    """Find photos named after their class, `<wnid>_<name>.JPEG`. Returns the index of each one's class."""
    folder = places.root / "imagenet" / "photos" if places.root else None
    indices = {label.id: index for index, label in enumerate(names)}
    if folder is None or not folder.is_dir():
        return {}
    tagged = ((path, path.name.split("_")[0]) for path in sorted(folder.iterdir()))
    return {path: indices[wnid] for path, wnid in tagged if wnid in indices}
