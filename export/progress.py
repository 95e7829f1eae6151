"""Progress of an export: lines on stderr, one changing line and a table for a training, and a file for a service.

On a terminal a training is one line that changes; elsewhere it is a few lines.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from serving.contract.exports import update_state

MOST_LINES = 5  # of a training, where output is no terminal
TOLD_SECONDS = 1.0  # between updates of the file


def say(text: str) -> None:
    """Print one line on stderr."""
    click.echo(text, err=True)


def say_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stderr. The first column is text, the others are numbers."""
    say(title)
    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    Console(stderr=True, highlight=False).print(table)


class ProgressFile:
    """The file from which a service tells how far its export is. Nothing is written until `write_to` names it."""

    def __init__(self) -> None:
        self._file: Path | None = None
        self._told_at = float("-inf")

    def write_to(self, file: Path) -> None:
        """Name the file; the service has created it."""
        self._file = file

    def tell(self, detail: str, progress: float | None = None) -> None:
        """Write what the export is doing. progress: 0-1; None where it is not known."""
        if self._file is None:
            return
        self._told_at = time.monotonic()
        update_state(self._file, detail, progress)

    def tell_sometimes(self, detail: str, progress: float) -> None:
        """The same, but at most once in TOLD_SECONDS."""
        if time.monotonic() - self._told_at >= TOLD_SECONDS:
            self.tell(detail, progress)


PROGRESS_FILE = ProgressFile()


def training_progress(epochs: int, steps: int) -> list[Any]:
    """Make Keras callbacks that show the progress of a training. steps: batches per epoch."""
    console = Console(stderr=True)
    return [_bar(console, epochs, steps) if console.is_terminal else _lines(epochs), _file(epochs, steps)]


def _file(epochs: int, steps: int) -> Any:
    import keras

    running = [0]

    def begin(epoch: int, logs: Any) -> None:  # noqa: ARG001
        running[0] = epoch
        PROGRESS_FILE.tell(f"epoch {epoch + 1} of at most {epochs}", epoch / epochs)

    def batch(number: int, logs: Any) -> None:  # noqa: ARG001
        done = running[0] + min(1.0, (number + 1) / max(1, steps))
        PROGRESS_FILE.tell_sometimes(f"epoch {running[0] + 1} of at most {epochs}", done / epochs)

    return keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_train_batch_end=batch)


def _lines(epochs: int) -> Any:
    import keras

    every = -(-epochs // MOST_LINES)
    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: (
            say(f"epoch {epoch + 1}/{epochs}  {_numbers(logs)}") if (epoch + 1) % every == 0 else None
        )
    )


def _bar(console: Console, epochs: int, steps: int) -> Any:
    import keras

    progress = Progress(
        TextColumn("epoch"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.fields[numbers]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    task = progress.add_task("training", total=epochs, numbers="")

    def show_batch(batch: int, logs: Any) -> None:
        done = int(progress.tasks[task].completed)
        progress.update(task, completed=done + min(0.999, (batch + 1) / max(1, steps)), numbers=_numbers(logs))

    return keras.callbacks.LambdaCallback(
        on_train_begin=lambda _logs: progress.start(),
        on_train_batch_end=show_batch,
        on_epoch_end=lambda epoch, logs: progress.update(task, completed=epoch + 1, numbers=_numbers(logs)),
        on_train_end=lambda _logs: progress.stop(),
    )


def _numbers(logs: Any) -> str:
    """Format what Keras reports: `loss 0.1230  accuracy 0.9640`."""
    wanted = ("loss", "accuracy", "val_loss", "val_accuracy")
    return "  ".join(f"{name} {float(logs[name]):.4f}" for name in wanted if name in (logs or {}))
