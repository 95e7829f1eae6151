"""Compare `sightline score`, end to end over HTTP, with the raw model in the same run.

    python -m benchmarks.bench_score MODELS [--rounds 3] [--pictures 10000] [--photos 600]

Needs the models `fashion` and `mobilenetv2` in MODELS. A round measures the raw SavedModel in a process of its own,
then the command against a service on this machine. Prints medians, their ratio, and the share of a run that the journal
and the progress bar took. One machine runs everything: compare numbers of one run only.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image
from rich.console import Console
from sightline.calls import PredictOptions
from sightline.client import Client

from benchmarks.bench import LARGE, SMALL, pictures_of
from benchmarks.services import ROOT, SIGHTLINE, running
from clients.batch import score as command
from clients.batch.journal import Journal
from clients.batch.scorer import Plan

RAW = {SMALL: (1, 128), LARGE: (2, 8)}  # threads and batch of the raw model
RECORDS = ("list_inputs", "record", "note")  # what the journal writes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--photos", type=int, default=600)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for model, count in ((SMALL, options.pictures), (LARGE, options.photos)):
            source = Path(folder, model)
            write_pictures(source, pictures_of(options.models, model), count)
            measure(options.models, model, source, options.rounds)


def write_pictures(folder: Path, pictures: Sequence[tuple[str, bytes]], count: int) -> None:
    """Write `count` files from a few pictures; small ones are shifted by some pixels each, so that no two are equal."""
    folder.mkdir()
    for number in range(count):
        _, data = pictures[number % len(pictures)]
        shift = number // len(pictures)
        if data.startswith(b"\x89PNG") and shift:
            buffer = io.BytesIO()
            Image.fromarray(np.roll(np.asarray(Image.open(io.BytesIO(data))), shift)).save(buffer, "PNG")
            data = buffer.getvalue()
        (folder / f"{number:06}").write_bytes(data)


def measure(models: Path, model: str, source: Path, rounds: int) -> None:
    """Measure raw model and command in turn, and profile one run."""
    raw, ends = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            raw.append(raw_per_second(models / model, *RAW[model]))
            with running(SIGHTLINE, models, model, Path(folder)) as service:
                url = service.url.partition("/predict")[0]
                ends.append(command_per_second(url, model, source, Path(folder, f"{number}.csv")))
                if number == rounds - 1:
                    looked_into = shares(url, model, source, Path(folder, "shares.csv"))
    limit, end_to_end = statistics.median(raw), statistics.median(ends)
    size = sum(file.stat().st_size for file in source.iterdir()) / len(list(source.iterdir()))
    print(f"{model}, files of {size / 1000:.1f} KB: {end_to_end:.0f} pictures a second end to end, {_list(ends)}")
    print(f"  the raw model {limit:.0f}, {_list(raw)}; ratio {end_to_end / limit:.2f}")
    print("  " + ", ".join(f"{name} {share:.1%} of the time" for name, share in looked_into.items()), flush=True)


def raw_per_second(folder: Path, threads: int, size: int) -> float:
    """Run the SavedModel in a process of its own. Returns pictures per second."""
    arguments = [sys.executable, "-m", "benchmarks.raw_model", str(folder), str(threads), str(size), "5"]
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return float(subprocess.run(arguments, cwd=ROOT, env=quiet, check=True, stdout=subprocess.PIPE).stdout)


def command_per_second(url: str, model: str, source: Path, out: Path) -> float:
    """Run the command as a person does, start and writing of the file included. Returns pictures per second."""
    arguments = [sys.executable, "-m", "clients", "score", str(source), "--model", model, "--out", str(out), "--json"]
    started = time.perf_counter()
    done = subprocess.run([*arguments, "--url", url], cwd=ROOT, check=True, capture_output=True)
    return int(json.loads(done.stdout)["rows"]) / (time.perf_counter() - started)


def shares(url: str, model: str, source: Path, out: Path) -> dict[str, float]:
    """Run the command in this process, with a progress bar. Returns the share of time in journal and bar, 0-1."""
    spent = {"the journal": 0.0, "the progress bar": 0.0}

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            started = time.thread_time()  # CPU time: waiting for a lock is not the journal's cost
            try:
                return call(*args, **kwargs)
            finally:
                spent[name] += time.thread_time() - started

        return wrapped

    class TimedJournal(Journal):
        """A journal whose time is measured."""

        def pending(self) -> Iterator[Any]:
            pages = super().pending()
            yield from iter(timed("the journal", lambda: next(pages, None)), None)

    for name in RECORDS:
        setattr(TimedJournal, name, timed("the journal", getattr(Journal, name)))
    bar_report = command._bar_report
    timed_parts = patch.multiple(
        command, Journal=TimedJournal, _bar_report=lambda bar, task: timed("the progress bar", bar_report(bar, task))
    )
    with timed_parts, Client(url) as client, open(os.devnull, "w") as nowhere:
        wanted = PredictOptions(model, 5)
        console = Console(file=nowhere, force_terminal=True)
        summary = command.run_job(command.Job(str(source), str(out), wanted), Plan(wanted, None), client, console)
    return {name: seconds / summary.seconds for name, seconds in spent.items()}


def _list(values: Sequence[float]) -> str:
    return f"each round {', '.join(f'{value:.0f}' for value in values)}"


if __name__ == "__main__":
    main()
