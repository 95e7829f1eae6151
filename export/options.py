"""The options that families share, and the objects that carry their values."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from export.artifact.served_form import PRECISIONS
from export.data.augmentation import AUGMENTATIONS, Strengths, parse_augmentation
from export.data.balance import BALANCES
from export.data.datasets import DataSet, Places
from export.data.folders import load_photos
from export.training.fit import Plan
from serving.contract.errors import UsageError
from serving.contract.preprocessing import Preprocessing

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment, as the entry point read it. root: SIGHTLINE_DATA. keras: Keras's download folder."""

    root: Path | None
    keras: Path

    def places(self, data: Path | None = None) -> Places:
        """The places where data is looked for, `data` first."""
        return Places(data=data, root=self.root, keras=self.keras)


@dataclass(frozen=True, slots=True)
class Target:
    """The version to write, models/name/<next number>, and its report, reports/name/<the same number>.

    reports: None for no report. report_only: write the report of the newest version again and nothing else. precision:
    of the served graph, one of PRECISIONS. tflite: write model.tflite beside the SavedModel.
    """

    models: Path
    name: str
    reports: Path | None = None
    report_only: bool = False
    precision: str = PRECISIONS[0]
    tflite: bool = True


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """The values of the training options. None stands for the family's own number."""

    data: Path | None
    epochs: int | None
    batch_size: int | None
    learning_rate: float | None
    augment: str | None
    balance: str
    folds: int
    tune: int
    mixed_precision: bool
    resume: bool
    seed: int

    def plan(self, target: Target, augment: Strengths, **family: Any) -> Plan:
        """The family's plan, with the options that were given in place of its own numbers."""
        given = {"epochs": self.epochs, "batch_size": self.batch_size, "learning_rate": self.learning_rate}
        return Plan(
            **{**family, **{name: value for name, value in given.items() if value is not None}},
            augment=tuple(sorted(parse_augmentation(self.augment, augment).items())),
            balance=self.balance,
            folds=self.folds,
            tune=self.tune,
            mixed_precision=self.mixed_precision,
            seed=self.seed,
            backups=target.models / target.name if self.resume else None,
        )


@dataclass(frozen=True, slots=True)
class FolderOptions:
    """The options of reading and splitting a folder of images. Shares are 0-1."""

    strict: bool
    validation_share: float
    test_share: float

    def load(self, training: TrainingOptions, preprocessing: Preprocessing) -> DataSet:
        """Load the folder or CSV of --data. Raises UsageError where --data is missing, DataNotFound, InvalidData."""
        if training.data is None:
            raise UsageError(
                "This family trains on your own images.",
                hint="Name their folder with --data: a folder per class, or a CSV file.",
            )
        return load_photos(
            training.data,
            preprocessing,
            seed=training.seed,
            strict=self.strict,
            validation_share=self.validation_share,
            test_share=self.test_share,
        )


def publishing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --out, --name, --reports and the like; the command receives them as `target`, a Target."""
    others = ("reports", "report_only", "precision", "tflite")

    @functools.wraps(command)
    def gathered(*args: Any, out: Path, name: str | None, **options: Any) -> Any:
        family = click.get_current_context().info_name or "model"
        target = Target(models=out, name=name or family, **{other: options.pop(other) for other in others})
        return command(*args, target=target, **options)

    folder = click.Path(path_type=Path, file_okay=False)
    return _all(
        click.option("--out", type=folder, default=Path("models"), show_default=True, help="Folder of models."),
        click.option("--name", help="Name of the model; by default the command's, or the file's."),
        click.option("--reports", type=folder, default=Path("reports"), show_default=True, help="Folder of reports."),
        click.option(
            "--report-only", is_flag=True, help="Write the report of the newest version again; train nothing."
        ),
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            default=PRECISIONS[0],
            show_default=True,
            help="Number format of the served graph.",
        ),
        click.option(
            "--tflite/--no-tflite",
            default=True,
            show_default=True,
            help="Also write model.tflite, for CPUs; float32 only.",
        ),
    )(gathered)


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the training options and the publishing ones; the command receives `training` and `target`."""
    names = tuple(TrainingOptions.__dataclass_fields__)

    @functools.wraps(command)
    def gathered(*args: Any, **options: Any) -> Any:
        return command(*args, training=TrainingOptions(**{name: options.pop(name) for name in names}), **options)

    return _all(
        click.option(
            "--data",
            type=click.Path(path_type=Path, exists=True),
            help="Folder of the data set; otherwise SIGHTLINE_DATA, then Keras's cache and download.",
        ),
        click.option(
            "--epochs", type=click.IntRange(1), help="Train for at most N epochs; each family has its own default."
        ),
        click.option("--batch-size", type=click.IntRange(1)),
        click.option("--learning-rate", type=click.FloatRange(0, min_open=True)),
        click.option("--augment", help=f"`none`, or a comma-separated list of {', '.join(AUGMENTATIONS)}."),
        click.option("--balance", type=click.Choice(BALANCES), default=BALANCES[0], show_default=True),
        click.option("--folds", type=click.IntRange(0), default=0, help="Cross-validate with N folds first."),
        click.option("--tune", type=click.IntRange(0), default=0, help="Try N learning rates and batch sizes first."),
        click.option("--mixed-precision", is_flag=True, help="Train in float16; for GPUs."),
        click.option("--resume/--no-resume", default=True, help="Resume a training that was killed."),
        click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True),
        publishing_options,
    )(gathered)


def arch_option(architectures: dict[str, Any]) -> Decorator:
    """Add --arch, with the names of the table; the first is the default."""
    names = tuple(architectures)
    return click.option("--arch", type=click.Choice(names), default=names[0], show_default=True)


def folder_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how a folder of images is read; the command receives `folder`, a FolderOptions."""
    names = tuple(FolderOptions.__dataclass_fields__)

    @functools.wraps(command)
    def gathered(*args: Any, **options: Any) -> Any:
        return command(*args, folder=FolderOptions(**{name: options.pop(name) for name in names}), **options)

    share = click.FloatRange(0, 0.9, min_open=True)
    return _all(
        click.option("--strict", is_flag=True, help="Fail when an image cannot be read."),
        click.option(
            "--validation",
            "validation_share",
            type=share,
            default=0.15,
            show_default=True,
            help="Share of the training images that chooses the best epoch.",
        ),
        click.option(
            "--test",
            "test_share",
            type=share,
            default=0.15,
            show_default=True,
            help="Share of the images that is tested on, where the data has no test folder.",
        ),
    )(gathered)


def _all(*decorators: Decorator) -> Decorator:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate
