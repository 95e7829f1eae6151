"""What the families share that train on a folder of pictures."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from export.data.augmentation import AUGMENTATIONS
from export.data.datasets import DataSet
from export.data.folders import load_pictures
from export.data.uint8_input import pixels
from export.options import Target, Training, training_options
from export.pipeline import Recipe, export
from export.training.fit import Build
from export.training.trained import trained
from serving.contract.errors import UsageError
from serving.contract.preprocessing import Preprocessing

PHOTO_AUGMENTATION = {name: AUGMENTATIONS[name][0] for name in ("flip", "rotation", "shift", "zoom", "contrast")}


def folder_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--strict, --validation, --test: how a folder of pictures is read and split."""
    share = click.FloatRange(0, 0.9, min_open=True)
    for option in (
        click.option("--strict", is_flag=True, help="Fail when a picture cannot be read."),
        click.option("--validation", "validation_share", type=share, default=0.15, show_default=True),
        click.option(
            "--test", "test_share", type=share, default=0.15, show_default=True, help="Without a test folder."
        ),
    ):
        command = option(command)
    return command


def folder_data(training: Training, preprocessing: Preprocessing, **shares: Any) -> Callable[[], DataSet]:
    """A loader for the folder or CSV of --data. Raises UsageError without one."""
    if training.data is None:
        raise UsageError(
            "this family trains on your own pictures",
            hint="Name their folder with --data: a folder per class, or a CSV.",
        )
    path: Path = training.data
    return partial(load_pictures, path, preprocessing, seed=training.seed, **shares)


def classic_command(name: str, build: Build, about: str) -> click.Command:
    """The subcommand of an architecture that is trained from scratch on a folder of pictures."""

    @click.option("--image-size", type=click.IntRange(32, 1024), default=128, show_default=True)
    @folder_options
    @training_options
    def command(*, training: Training, target: Target, image_size: int, **shares: Any) -> None:
        if target.report_only:
            export(Recipe(name, _nothing), target)
            return
        plan = training.plan(
            target,
            PHOTO_AUGMENTATION,
            epochs=40,
            batch_size=32,
            learning_rate=1e-3,
            patience=10,
            schedule="plateau",
        )
        load = folder_data(training, pixels("rgb", (image_size, image_size), "crop"), **shares)
        export(Recipe(name, partial(trained, load, build, plan)), target)

    text = f"{about}\n\n\b\nsightline export {name} --data ~/photos --image-size 128 --name flowers"
    return click.command(name, help=text)(command)


def _nothing() -> Any:
    raise UsageError("there is nothing to make when only the report is written")
