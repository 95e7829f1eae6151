"""Draw rate and memory of a long run of `sightline score`, to see whether either drifts.

    python -m benchmarks.bench_growth MODELS [--pictures 1000000] [--out reports/growth]

Scores a list of PNGs (10,000 different ones, repeated) against a service on this machine, and samples every few seconds
how many were answered and how much memory each part holds. Prints a line per power of ten and writes JSON and SVG. A
million takes minutes to tens of minutes.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.bench import SMALL, pictures_of
from benchmarks.bench_score import write_pictures
from benchmarks.services import ROOT, SIGHTLINE, memory_bytes, running

DIFFERENT = 10_000
FIRST = 1_000  # where the curves begin
PARTS = {"model server": "serving.model_server", "gateway": "gunicorn"}  # by a word of their command line
ANSWERED = re.compile(rb'^sightline_pictures_total\{[^}]*outcome="answered"[^}]*\} ([\d.e+]+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample. seconds: since the command began; pictures: answered by then; memory: bytes by part."""

    seconds: float
    pictures: int
    memory: Mapping[str, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--pictures", type=int, default=1_000_000)
    parser.add_argument("--every", type=float, default=2.0, help="seconds between samples")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "growth")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "files")
        write_pictures(files, pictures_of(options.models, SMALL), min(DIFFERENT, options.pictures))
        paths = sorted(map(str, files.iterdir()))
        listing = Path(folder, "list.txt")
        with listing.open("w") as lines:
            lines.writelines(f"{paths[number % len(paths)]}\n" for number in range(options.pictures))
        samples = watched(options.models, listing, Path(folder), options.every)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "growth.json").write_text(json.dumps([asdict(sample) for sample in samples]))
    draw(samples, options.out / "growth.svg")
    print(table(samples))


def watched(models: Path, listing: Path, folder: Path, every: float) -> list[Sample]:
    """Run the command over the list, taking samples meanwhile."""
    with running(SIGHTLINE, models, SMALL, folder) as service:
        url = service.url.partition("/predict")[0]
        parts = {name: [pid for pid in service.processes() if word in _command(pid)] for name, word in PARTS.items()}
        command = [sys.executable, "-m", "clients", "score", str(listing), "--model", SMALL, "--url", url, "--json"]
        began = time.monotonic()
        process = subprocess.Popen(
            [*command, "--out", str(folder / "out.csv")], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        parts["client"] = [process.pid]
        samples = []
        while process.poll() is None:
            with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
                pictures = sum(int(float(value)) for value in ANSWERED.findall(answer.read()))
            memory = {name: memory_bytes(pids) for name, pids in parts.items()}
            samples.append(Sample(time.monotonic() - began, pictures, memory))
            time.sleep(every)
        assert process.stdout is not None
        print(process.stdout.read().decode().strip())
        if process.returncode:
            raise RuntimeError(f"the command ended with {process.returncode}: {' '.join(command)}")
    # Drop the samples before the first answer and after the last, while the file is written.
    return [each for before, each in pairwise(samples) if each.pictures > before.pictures and each.memory["client"]]


def table(samples: Sequence[Sample]) -> str:
    """Format one line per power of ten: the rate since the line before, and the memory."""
    lines = [f"{'pictures':>10}{'seconds':>9}{'per second':>12}" + "".join(f"{name:>16}" for name in samples[0].memory)]
    before = samples[0]
    wanted = FIRST
    for sample in samples:
        if sample.pictures >= wanted:
            rate = (sample.pictures - before.pictures) / max(sample.seconds - before.seconds, 1e-9)
            held = "".join(f"{size / 1e6:>13.0f} MB" for size in sample.memory.values())
            lines.append(f"{sample.pictures:>10,}{sample.seconds:>9.0f}{rate:>12.0f}{held}")
            before = sample
            wanted = 10 ** len(str(sample.pictures))
    return "\n".join(lines)


def draw(samples: Sequence[Sample], path: Path) -> None:
    """Plot rate and memory over the pictures scored so far."""
    from matplotlib.figure import Figure  # not pyplot: no window

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    rate, memory = figure.subplots(1, 2)
    steps = list(pairwise(samples))
    rate.plot(
        [after.pictures for _, after in steps],
        [(after.pictures - before.pictures) / (after.seconds - before.seconds) for before, after in steps],
    )
    rate.set(xlabel="pictures scored", ylabel="pictures a second", xscale="log")
    rate.set_ylim(bottom=0)
    for name in samples[0].memory:
        memory.plot([each.pictures for each in samples], [each.memory[name] / 1e6 for each in samples], label=name)
    memory.set(xlabel="pictures scored", ylabel="MB", xscale="log")
    memory.set_ylim(bottom=0)
    memory.legend()
    figure.savefig(path, metadata={"Date": None})


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


if __name__ == "__main__":
    os.environ.setdefault("SIGHTLINE_LOG_LEVEL", "WARNING")
    main()
