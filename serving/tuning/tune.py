"""`sightline tune`: try settings with the user's own model on this machine, and print the best."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import httpx

from serving.contract.errors import ProcessDied, UsageError
from serving.contract.machine import usable_cpus
from serving.contract.versions import GOLDEN_DIR, version_dirs
from serving.gateway.settings import PREFIX, Settings, workers_for
from serving.tuning.load import Load, requests_of, run

START_SECONDS = 120.0
STOP_SECONDS = 10.0
WORTH = 1.05  # a smaller gain is not worth leaving the default
WARM_UP_SECONDS = 1.0

Values = Mapping[str, int]
Measure = Callable[[Values], Load]


@dataclass(frozen=True, slots=True)
class Trial:
    """Settings and their measured load."""

    values: Values
    load: Load


@click.command("tune")
@click.option(
    "--models", default="models", show_default=True, type=click.Path(path_type=Path), help="Folder of models."
)
@click.option("--model", required=True, help="Model to tune for.")
@click.option("--clients", default=32, show_default=True, type=click.IntRange(1), help="Concurrent clients.")
@click.option("--seconds", default=60.0, show_default=True, type=click.FloatRange(1), help="Total time of measuring.")
@click.argument("pictures", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
def tune(*, models: Path, model: str, clients: int, seconds: float, pictures: tuple[Path, ...]) -> None:
    """Find the settings that suit this machine and one of your models.

    PICTURES are images like those of your clients; by default the model's golden examples. Leave the machine otherwise
    idle.

    \b
    sightline tune --model fashion
    sightline tune --model mobilenetv2 --clients 8 photos/*.jpg
    """
    files = [(path.name, path.read_bytes()) for path in pictures] or golden_pictures(models, model)
    candidates = candidates_for(usable_cpus())
    each = seconds / (1 + sum(len(values) - 1 for values in candidates.values()))

    def measure(values: Values) -> Load:
        with _serving(models, model, values) as url:
            requests = requests_of(url, files, 1, as_form=False)
            return run(url, requests, clients=clients, seconds=each, warm_up=WARM_UP_SECONDS)

    best = search(candidates, measure, lambda trial: click.echo(_line(trial), err=True))
    click.echo(_advice(best, clients))


def candidates_for(cpus: int) -> dict[str, tuple[int, ...]]:
    """Return the values to try for each setting of Settings, the default first."""
    threads = (0, *sorted({1, cpus} - {max(1, cpus // 2)}))
    workers = (0, *sorted({1, 2, cpus // 2, cpus} - {0, workers_for(cpus)}))
    return {"workers": workers, "merge_pictures": (32, 8, 128), "model_threads": threads}


def search(candidates: Mapping[str, Sequence[int]], measure: Measure, tell: Callable[[Trial], None]) -> Trial:
    """Try one setting after the other, each with the best values so far. tell: called with every trial.

    A better value is measured again, after the one that it would replace: a machine's speed changes over time.
    """

    def tried(values: Values) -> Trial:
        trial = Trial(values, measure(values))
        tell(trial)
        return trial

    values = {name: options[0] for name, options in candidates.items()}
    best = tried(values)
    for name, options in candidates.items():
        for option in options[1:]:
            trial = tried({**best.values, name: option})
            if _is_better(trial, best):
                best, trial = tried(best.values), tried(trial.values)
                best = trial if _is_better(trial, best) else best
    return best


def _is_better(trial: Trial, than: Trial) -> bool:
    return trial.load.per_second > WORTH * than.load.per_second


def golden_pictures(models: Path, model: str) -> list[tuple[str, bytes]]:
    """Return names and bytes of a model's golden images. Raises UsageError where it has none."""
    versions = version_dirs(models / model)
    files = sorted((versions[-1] / GOLDEN_DIR).glob("*.png")) if versions else []
    if not files:
        raise UsageError(
            f"{models / model} holds no version with golden examples.", hint="Give images to send, or another --model."
        )
    return [(path.name, path.read_bytes()) for path in files]


@contextlib.contextmanager
def _serving(models: Path, model: str, values: Values) -> Iterator[str]:
    """Run the whole service with these settings on free ports; yield the URL for predictions."""
    port, grpc_port = _free_port(), _free_port()
    command = [sys.executable, "-m", "serving", "--models", str(models), "--port", str(port)]
    environ = {**os.environ, PREFIX + "LOG_LEVEL": "WARNING"}
    environ |= {PREFIX + name.upper(): str(value) for name, value in values.items()}
    process = subprocess.Popen(
        [*command, "--grpc-port", str(grpc_port)],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    base = f"http://127.0.0.1:{port}"
    try:
        _wait(process, f"{base}/v2/models/{model}/ready")
        yield f"{base}/predict/{model}"
    finally:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(timeout=5, trust_env=False) as client:
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if client.get(url).status_code == httpx.codes.OK:
                    return
            time.sleep(0.05)
    raise ProcessDied(f"The service did not answer {url}.", hint="Check that `sightline serve` serves the model.")


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _line(trial: Trial) -> str:
    settings = "  ".join(f"{name} {value}" for name, value in trial.values.items())
    return f"{settings}: {trial.load.per_second:.0f} a second, p99 {trial.load.p99:.1f} ms"


def _advice(best: Trial, clients: int) -> str:
    """Format the best settings as environment variables, without the defaults."""
    changed = {name: value for name, value in best.values.items() if value != Settings.model_fields[name].default}
    lines = [f"{PREFIX}{name.upper()}={value}" for name, value in changed.items()]
    head = f"# {clients} clients: {best.load.per_second:.0f} a second, p99 {best.load.p99:.1f} ms"
    return "\n".join([head, *(lines or ["# The defaults are best."])])
