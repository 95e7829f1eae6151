"""`sightline predict` and `sightline models`: the answers of a running service at the terminal."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sightline.client import DEFAULT_URL, Client
from sightline.errors import SightlineError, UsageError
from sightline.results import Failed, Label, Model, Prediction

from serving.contract import errors as contract
from serving.contract.picture_files import LeftOut, picture_files

UNCUT = 10_000  # characters of a line where output is piped: a row of a table stays one line
CLIENT_OPTIONS = (
    click.option(
        "--url", envvar="SIGHTLINE_URL", default=DEFAULT_URL, show_default=True, help="Address of the service."
    ),
    click.option("--api-key", envvar="SIGHTLINE_API_KEY", help="API key of the service."),
    click.option(
        "--timeout",
        default=60.0,
        show_default=True,
        type=click.FloatRange(0, min_open=True),
        help="Seconds to wait for an answer.",
    ),
)


def client_options(command: Any) -> Any:
    """Give a command --url, --api-key and --timeout."""
    for option in reversed(CLIENT_OPTIONS):
        command = option(command)
    return command


@click.command(epilog="Example: sightline predict docs/samples/coffee.jpg photos/ --model imagenet")
@click.argument("paths", nargs=-1, required=True, metavar="FILE|FOLDER...", type=click.Path())
@click.option("--model", "-m", required=True, help="Name of the model.")
@click.option("--version", type=int, help="Version of the model; by default the newest.")
@click.option("--label", help="Version of the model, by its label.")
@click.option("--top", default=5, show_default=True, type=click.IntRange(1), help="How many labels to name.")
@click.option("--min-score", type=click.FloatRange(0, 1), help="Name no label whose score is below it (0-1).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@client_options
def predict(
    *,
    paths: Sequence[str],
    model: str,
    version: int | None,
    label: str | None,
    top: int,
    min_score: float | None,
    as_json: bool,
    url: str,
    api_key: str | None,
    timeout: float,
) -> None:
    """Classify images by a running service.

    Of a folder, every image in it and in its folders is classified, in the order of their names. An image that fails is
    a row with its reason, and does not disturb the others. Exit 1 when some failed.
    """
    left_out = LeftOut()
    files = images_at(paths, left_out)
    with Client(url, api_key=api_key, timeout=timeout) as client:
        try:
            outcomes = client.predict_many(
                files, model=model, top=top, version=version, label=label, min_score=min_score
            )
        except SightlineError as exc:
            raise as_usage_error(exc) from exc  # it concerns every picture
    if as_json:
        click.echo(json.dumps(predictions_json(files, outcomes), indent=2))
    else:
        console().print(predictions_table(files, outcomes))
    if any(map(os.path.isdir, paths)):
        for line in summary_lines(outcomes, left_out):
            click.echo(line, err=True)
    sys.exit(1 if any(isinstance(outcome, Failed) for outcome in outcomes) else 0)


@click.command(epilog="Example: sightline models --url http://gpu-7:8000")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@client_options
def models(*, as_json: bool, url: str, api_key: str | None, timeout: float) -> None:
    """List the models of a running service, their versions and the states of these."""
    with Client(url, api_key=api_key, timeout=timeout) as client:
        served = client.models()
    if as_json:
        rows = [{"name": row.name, "versions": [asdict(version) for version in row.versions]} for row in served]
        click.echo(json.dumps({"models": rows}, indent=2))
    else:
        console().print(models_table(served))


def images_at(paths: Sequence[str], left_out: LeftOut) -> list[str]:
    """List files as they are named, and the images in and below each folder. Raises UsageError where there is none."""
    files: list[str] = []
    for path in paths:
        files += picture_files(path, left_out) if os.path.isdir(path) else [path]
    if not files:
        raise UsageError(f"There is no image in {', '.join(map(printable, paths))}")
    return files


def summary_lines(outcomes: Sequence[Prediction | Failed], left_out: LeftOut) -> list[str]:
    """Count the images and those that failed, then what a folder held besides."""
    failed = sum(isinstance(outcome, Failed) for outcome in outcomes)
    images = "1 image" if len(outcomes) == 1 else f"{len(outcomes):,} images"
    return [f"{images}: {len(outcomes) - failed:,} classified, {failed:,} failed", *left_out.lines()]


def console() -> Console:
    """Open the terminal; lines are not cut where output is piped."""
    terminal = Console(highlight=False)
    return terminal if terminal.is_terminal else Console(highlight=False, width=UNCUT, soft_wrap=True)


def as_usage_error(error: SightlineError | contract.SightlineError) -> Exception:
    """The same error, with exit status 2: nothing at all could be done."""
    return error if error.exit_status == 2 else UsageError(error.detail, hint=error.hint, code=error.code)


def predictions_json(files: Sequence[str], outcomes: Sequence[Prediction | Failed]) -> dict[str, Any]:
    """The outcomes in the form of the HTTP answer, with each file's path."""
    entries = [{"file": printable(file)} | _entry(outcome) for file, outcome in zip(files, outcomes, strict=True)]
    answered = [outcome for outcome in outcomes if isinstance(outcome, Prediction)]
    head = {"model": answered[0].model, "version": answered[0].version} if answered else {}
    return head | {"predictions": entries}


def _entry(outcome: Prediction | Failed) -> dict[str, Any]:
    if isinstance(outcome, Failed):
        return {"error": outcome.error.detail, "code": outcome.error.code, "hint": outcome.error.hint}
    return {
        "label": outcome.label,
        **({"id": outcome.id} if outcome.top[0].id else {}),
        **({"reason": outcome.reason} if outcome.reason else {}),
        "score": outcome.score,
        **({} if outcome.raw_score is None else {"raw_score": outcome.raw_score}),
        "top": [_label_entry(label) for label in outcome.top],
    }


def _label_entry(label: Label) -> dict[str, Any]:
    named = {"label": label.label, "id": label.id} if label.id else {"label": label.label}
    return {**named, "index": label.index, "score": label.score}


def predictions_table(files: Sequence[str], outcomes: Sequence[Prediction | Failed]) -> Table:
    """Make a row for each picture: its label, score and runners-up, or why it has none."""
    table = Table("file", "label", "score", "runners-up", box=None, pad_edge=False)
    table.columns[2].justify = "right"
    for file, outcome in zip(files, outcomes, strict=True):
        name = escape(printable(file))
        if isinstance(outcome, Failed):
            table.add_row(name, f"[red]{outcome.error.code}[/red]", "", escape(str(outcome.error)))
        else:
            others = outcome.top[1:] if outcome.label is not None else outcome.top
            runners_up = ", ".join(f"{_named(label)} {label.score:.3f}" for label in others)
            label = (
                f"[yellow]{outcome.reason}[/yellow]"
                if outcome.label is None
                else f"[bold]{escape(_named(outcome.top[0]))}[/bold]"
            )
            table.add_row(name, label, f"{outcome.score:.4f}", escape(runners_up))
    return table


def _named(label: Label) -> str:
    return f"{label.label} ({label.id})" if label.id else label.label


def models_table(served: Sequence[Model]) -> Table:
    """Make a row for each version of each model."""
    table = Table("model", "version", "state", "error", box=None, pad_edge=False)
    for model in served:
        for version in model.versions:
            table.add_row(escape(model.name), str(version.version), version.state, escape(version.error))
    return table


def printable(path: str) -> str:
    """Escape a path for a terminal: bytes that are not UTF-8 as \\xNN, and control characters."""
    shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown)
