"""Measure Sightline, its limits and its peers in turn, in one run; print a table, write a picture and JSON.

    make bench                                # python -m benchmarks.bench
    make bench ARGS="--rounds 5 --peers"      # with the peers that `make bench-peers` installed
    make bench-compare BEFORE=a.json AFTER=b.json

Needs the models `fashion` and `mobilenetv2` in ./models (sightline export). One machine runs service and load: compare
numbers of one run with each other, or runs on one machine that did nothing else.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.raw_model import runtimes_of
from benchmarks.services import (
    CEILING,
    PEER_SERVICES,
    ROOT,
    SIGHTLINE,
    Service,
    memory_bytes,
    running,
)
from serving.contract.versions import GOLDEN_DIR, version_dirs
from serving.tuning.load import form, requests_of

SMALL, LARGE = "fashion", "mobilenetv2"
CLIENTS = {SMALL: (1, 8, 32, 128), LARGE: (1, 8, 32)}
PHOTO_BYTES = 100_000
MANY = 32  # pictures in a request of many

Answer = tuple[str, float]  # a label and its score


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement. per_second: answered requests, or pictures where a request holds several.

    p50, p99: milliseconds of an answered request; refused_p99: of a 503. spread: (largest - smallest) /
    median of the rounds.
    """

    service: str
    case: str
    clients: int
    per_second: float
    p50: float = 0.0
    p99: float = 0.0
    refused: int = 0
    broken: int = 0
    refused_p99: float = 0.0
    spread: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", action="store_true", help="measure the peers too")
    parser.add_argument("--only", nargs="*", default=[SMALL, LARGE], help="models")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "bench")
    options = parser.parse_args()
    report = measure(options)
    options.out.mkdir(parents=True, exist_ok=True)
    name = time.strftime("%Y%m%d-%H%M%S")
    path = options.out / f"{name}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))
    draw(report, path.with_suffix(".png"))
    print(f"{path} and {path.with_suffix('.png').name}")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run all rounds, each over every service, so that a disturbance of the machine hits all alike."""
    found: dict[tuple[str, str, int], list[Row]] = {}
    facts: dict[str, list[float]] = {}
    answers: dict[tuple[str, str], list[Answer]] = {}
    services = [CEILING, SIGHTLINE, *([each for each in PEER_SERVICES if each.is_installed] if options.peers else [])]
    for number in range(options.rounds):
        for model in options.only:
            rows = list(raw_rows(options, model))
            for service in services:
                if service is CEILING and model == LARGE:
                    continue
                say(f"round {number + 1}: {service.name}, {model}")
                try:
                    rows += service_rows(service, model, options, facts, answers)
                except (RuntimeError, OSError) as exc:  # go on with the others
                    say(f"{service.name}: {exc}")
            for row in rows:
                found.setdefault((row.service, row.case, row.clients), []).append(row)
    return {
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine(), "load": os.getloadavg()},
        "when": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "facts": {name: round(statistics.median(values), 2) for name, values in facts.items()},
        "answers": {f"{service}, {model}": agreement(answers, service, model) for service, model in answers},
        "rows": [asdict(median_row(rows)) for rows in found.values()],
    }


def median_row(rows: Sequence[Row]) -> Row:
    """Return the median round by rate, with the spread of all rounds."""
    ordered = sorted(rows, key=lambda row: row.per_second)
    middle = ordered[len(ordered) // 2]
    spread = (ordered[-1].per_second - ordered[0].per_second) / middle.per_second if middle.per_second else 0.0
    return Row(**{**asdict(middle), "spread": round(spread, 2)})


def raw_rows(options: argparse.Namespace, model: str) -> Iterator[Row]:
    """Measure the model in a process of its own, on TensorFlow and on LiteRT: the limit of whatever serves it."""
    for runtime in runtimes_of(version_dirs(options.models / model)[-1]):
        say(f"the raw model, {runtime}: {model}")
        for threads, size in ((1, 1), (2, 1), (2, 8), *([(1, 128)] if model == SMALL else [(1, 8)])):
            arguments = (options.models / model, threads, size, options.seconds, runtime)
            command = [sys.executable, "-m", "benchmarks.raw_model", *map(str, arguments)]
            quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
            done = subprocess.run(command, cwd=ROOT, env=quiet, check=True, stdout=subprocess.PIPE, text=True)
            rate = round(float(done.stdout), 1)
            yield Row(f"raw model, {runtime}", f"{model}: {threads} x {size}", threads, rate)


def service_rows(
    service: Service,
    model: str,
    options: argparse.Namespace,
    facts: dict[str, list[float]],
    answers: dict[tuple[str, str], list[Answer]],
) -> Iterator[Row]:
    """Put one service under every load."""
    pictures = pictures_of(options.models, model)
    with running(service, options.models, model, options.out / "logs") as it:

        def loaded(case: str, size: int, clients: int, *, as_form: bool = False) -> Row:
            requests = requests_of(it.url, pictures, size, as_form=as_form or service.form)
            return _row(service, f"{model}: {case}", size, _load(it.url, requests, clients, options))

        if service is not CEILING:
            answers[service.name, model] = [_answer(it.url, service, picture) for picture in pictures]
        for clients in CLIENTS[model]:
            yield loaded("one a request", 1, clients)
        if service is SIGHTLINE:
            if model == SMALL:
                yield loaded("one a form", 1, 32, as_form=True)
                yield loaded(f"{MANY} a request", MANY, 4, as_form=True)
                facts.setdefault("seconds until the gateway answers", []).append(it.listened)
                facts.setdefault("seconds until the model answers", []).append(it.started)
            megabytes = memory_bytes(it.processes()) / 1e6
            facts.setdefault(f"memory of everything under {model}, MB", []).append(megabytes)


def _load(url: str, requests: Sequence[bytes], clients: int, options: argparse.Namespace) -> dict[str, Any]:
    """Run the load generator in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        for number, request in enumerate(requests):
            (Path(folder) / f"{number:04}").write_bytes(request)
        command = [sys.executable, "-m", "serving.tuning.load", url, folder, "--ready-made"]
        command += ["--clients", str(clients), "--seconds", str(options.seconds), "--warm-up", "1"]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _row(service: Service, case: str, size: int, load: dict[str, Any]) -> Row:
    refused = sum(count for status, count in load["statuses"].items() if status != "200")
    rate = round(load["per_second"] * size, 1)
    latencies = (load["p50"], load["p99"])
    return Row(service.name, case, load["clients"], rate, *latencies, refused, load["broken"], load["refused_p99"])


def _answer(url: str, service: Service, picture: tuple[str, bytes]) -> Answer:
    """Return the service's best label and its score for one picture."""
    body, kind = form([picture]) if service.form else (picture[1], "image/*")
    request = urllib.request.Request(url, body, {"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)
    best = answer["predictions"][0] if "predictions" in answer else answer
    return best["label"], best["score"]


def agreement(answers: dict[tuple[str, str], list[Answer]], service: str, model: str) -> str:
    """Compare a service's answers with Sightline's, in words."""
    pairs = list(zip(answers[service, model], answers.get((SIGHTLINE.name, model), []), strict=False))
    same = sum(mine[0] == ours[0] for mine, ours in pairs)
    farthest = max((abs(mine[1] - ours[1]) for mine, ours in pairs), default=0.0)
    return f"{same} of {len(pairs)} labels, scores within {farthest:.4f}"


def pictures_of(models: Path, model: str) -> list[tuple[str, bytes]]:
    """Return the model's golden PNGs; for photos, the JPEGs in SIGHTLINE_DATA closest to PHOTO_BYTES, if any."""
    root = os.environ.get("SIGHTLINE_DATA")
    photos = sorted((Path(root) / "imagenet" / "photos").glob("*.JPEG")) if root and model == LARGE else []
    if photos:
        nearest = sorted(photos, key=lambda path: abs(path.stat().st_size - PHOTO_BYTES))[:12]
        return [(path.name, path.read_bytes()) for path in nearest]
    golden = version_dirs(models / model)[-1] / GOLDEN_DIR
    return [(path.name, path.read_bytes()) for path in sorted(golden.glob("*.png"))]


def table(report: dict[str, Any]) -> str:
    """Format one line per measurement, with Sightline's ratio to it."""
    rows = [Row(**row) for row in report["rows"]]
    ours = {(row.case, row.clients): row.per_second for row in rows if row.service == SIGHTLINE.name}
    head = f"{'per second':>11}{'p50 ms':>9}{'p99 ms':>9}{'refused':>9}{'in ms':>8}{'Sightline is':>14}"
    lines = [f"{'case':28}{'clients':>8}  {'service':28}{head}"]
    for row in sorted(rows, key=lambda row: (row.case, row.clients, -row.per_second)):
        mine = ours.get((row.case, row.clients))
        ratio = f"{mine / row.per_second:.2f} x" if mine and row.per_second and row.service != SIGHTLINE.name else ""
        lines.append(
            f"{row.case:28}{row.clients:>8}  {row.service:28}{row.per_second:>11.1f}{row.p50:>9.2f}{row.p99:>9.2f}"
            f"{row.refused:>9}{row.refused_p99:>8.2f}{ratio:>14}"
        )
    told = {**report["facts"], **{f"answers of {name}": text for name, text in report["answers"].items()}}
    return "\n".join([*lines, *(f"{name}: {value}" for name, value in told.items())])


def draw(report: dict[str, Any], path: Path) -> None:
    """Plot rate over clients, one panel per case with several numbers of clients."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    rows = [Row(**row) for row in report["rows"] if "one a request" in row["case"]]
    cases = sorted({row.case for row in rows})
    figure, panels = pyplot.subplots(1, max(1, len(cases)), figsize=(6 * max(1, len(cases)), 4.5), squeeze=False)
    for panel, case in zip(panels[0], cases, strict=False):
        for service in dict.fromkeys(row.service for row in rows if row.case == case):
            points = sorted((row.clients, row.per_second) for row in rows if (row.case, row.service) == (case, service))
            panel.plot(*zip(*points, strict=True), marker="o", label=service)
        panel.set(title=case, xlabel="clients", ylabel="requests a second", xscale="log")
        panel.set_xticks(sorted({row.clients for row in rows if row.case == case}), minor=False)
        panel.get_xaxis().set_major_formatter(mpl.ticker.ScalarFormatter())
        panel.set_ylim(bottom=0)
        panel.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
