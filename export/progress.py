"""Progress on stderr while a model trains: a bar on a terminal, a line per epoch in a log."""

from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def say(text: str) -> None:
    """Print one line on stderr."""
    click.echo(text, err=True)


def training_progress(epochs: int, steps: int) -> Any:
    """Make a Keras callback that shows the progress of a training. steps: batches per epoch."""
    console = Console(stderr=True)
    return _bar(console, epochs, steps) if console.is_terminal else _lines(epochs)


def _lines(epochs: int) -> Any:
    import keras

    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: say(f"epoch {epoch + 1}/{epochs}  {_numbers(logs)}")
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
