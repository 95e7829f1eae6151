"""The options that families share, and the objects that carry them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from export.artifact.served_form import PRECISIONS
from export.data.augmentation import AUGMENTATIONS, Strengths, chosen
from export.data.balance import BALANCES
from export.data.datasets import Places
from export.training.fit import Plan

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class Session:
    """What the environment says; read in the entry point. root: SIGHTLINE_DATA. keras: Keras's folder of downloads."""

    root: Path | None
    keras: Path

    def places(self, data: Path | None = None) -> Places:
        """Where to look for data, `data` first."""
        return Places(data=data, root=self.root, keras=self.keras)


@dataclass(frozen=True, slots=True)
class Target:
    """Where the version goes: models/name/<next number>, and its report: reports/name/<the same number>.

    report_only: only write the report of the newest version again. reports: None for no report. precision: what the
    graph computes in, one of PRECISIONS. tflite: write model.tflite beside the SavedModel.
    """

    models: Path
    name: str
    reports: Path | None = None
    report_only: bool = False
    precision: str = PRECISIONS[0]
    tflite: bool = True


@dataclass(frozen=True, slots=True)
class Training:
    """What the training options say. Numbers that were not given are None: the family knows its own."""

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
        """The family's plan with what the person asked for in the place of its own numbers."""
        asked = {"epochs": self.epochs, "batch_size": self.batch_size, "learning_rate": self.learning_rate}
        return Plan(
            **{**family, **{name: value for name, value in asked.items() if value is not None}},
            augment=tuple(sorted(chosen(augment, self.augment).items())),
            balance=self.balance,
            folds=self.folds,
            tune=self.tune,
            mixed_precision=self.mixed_precision,
            seed=self.seed,
            backups=target.models / target.name if self.resume else None,
        )


def publishing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--out, --name, --reports and their like: the command is given `target`, a Target, in their place."""
    others = ("reports", "report_only", "precision", "tflite")

    @functools.wraps(command)
    def gathered(*args: Any, out: Path, name: str | None, **options: Any) -> Any:
        family = click.get_current_context().info_name or "model"
        target = Target(models=out, name=name or family, **{other: options.pop(other) for other in others})
        return command(*args, target=target, **options)

    folder = click.Path(path_type=Path, file_okay=False)
    return _all(
        click.option("--out", type=folder, default=Path("models"), show_default=True, help="The models' folder."),
        click.option("--name", help="The model's name; by default the family's."),
        click.option("--reports", type=folder, default=Path("reports"), show_default=True, help="The reports' folder."),
        click.option("--report-only", is_flag=True, help="Write the newest version's report again; train nothing."),
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            default=PRECISIONS[0],
            show_default=True,
            help="Of the served graph.",
        ),
        click.option(
            "--tflite/--no-tflite",
            default=True,
            show_default=True,
            help="Write model.tflite too, for CPUs; float32 only.",
        ),
    )(gathered)


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Everything about training, and --out and its like: the command is given `training` and `target`."""
    names = tuple(Training.__dataclass_fields__)

    @functools.wraps(command)
    def gathered(*args: Any, **options: Any) -> Any:
        return command(*args, training=Training(**{name: options.pop(name) for name in names}), **options)

    return _all(
        click.option(
            "--data",
            type=click.Path(path_type=Path, exists=True),
            help="Where the data set is; otherwise SIGHTLINE_DATA, then Keras's cache and download.",
        ),
        click.option("--epochs", type=click.IntRange(1), help="At most so many; the family has its own number."),
        click.option("--batch-size", type=click.IntRange(1)),
        click.option("--learning-rate", type=click.FloatRange(0, min_open=True)),
        click.option("--augment", help=f"none, or a list with commas of: {', '.join(AUGMENTATIONS)}."),
        click.option("--balance", type=click.Choice(BALANCES), default=BALANCES[0], show_default=True),
        click.option("--folds", type=click.IntRange(0), default=0, help="Cross-validate with so many folds first."),
        click.option("--tune", type=click.IntRange(0), default=0, help="Try so many learning rates and batch sizes."),
        click.option("--mixed-precision", is_flag=True, help="Train in float16; for GPUs."),
        click.option("--resume/--no-resume", default=True, help="Take up a training that was killed."),
        click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True),
        publishing_options,
    )(gathered)


def arch_option(architectures: dict[str, Any]) -> Decorator:
    """--arch, one of the table's; the first is the default."""
    names = tuple(architectures)
    return click.option("--arch", type=click.Choice(names), default=names[0], show_default=True)


def _all(*decorators: Decorator) -> Decorator:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate
