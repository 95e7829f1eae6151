"""The options that families share, and the object that carries them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from export.datasets import Places

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class Session:
    """What a command was given beside the family's own options; made in the entry point.

    models: the folder in which `<name>/<version>` appears. root: SIGHTLINE_DATA. keras: Keras's folder of downloads.
    """

    root: Path | None
    keras: Path

    def places(self, data: Path | None) -> Places:
        """Where to look for data, `data` first."""
        return Places(data=data, root=self.root, keras=self.keras)


@dataclass(frozen=True, slots=True)
class Target:
    """Where the version goes: models/name/<next number>."""

    models: Path
    name: str


def publishing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--out, --name."""
    return _all(
        click.option(
            "--out",
            type=click.Path(path_type=Path, file_okay=False),
            default=Path("models"),
            show_default=True,
            help="The folder that holds the models.",
        ),
        click.option("--name", help="The model's name; by default the family's."),
    )(command)


def training_options(*, architectures: tuple[str, ...], epochs: int) -> Decorator:
    """--data, --arch, --epochs, --seed, and where the version goes. The first architecture is the default."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        return _all(
            click.option(
                "--data",
                type=click.Path(path_type=Path, exists=True, file_okay=False),
                help="The folder that holds the data set; otherwise SIGHTLINE_DATA, then Keras's cache and download.",
            ),
            click.option("--arch", type=click.Choice(architectures), default=architectures[0], show_default=True),
            click.option("--epochs", type=click.IntRange(1), default=epochs, show_default=True),
            click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True),
            publishing_options,
        )(command)

    return decorate


def _all(*decorators: Decorator) -> Decorator:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate
