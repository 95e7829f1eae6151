"""`sightline doctor`: replay a model's golden examples through every stage and name the first that differs.

Export records a few real pictures, their tensors and the probabilities that Keras gave for them. Each stage computes
them again, one step farther from the export: preprocessing, the SavedModel reloaded, gRPC, HTTP.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from sightline import calls
from sightline.client import Client
from sightline.errors import SightlineError, UsageError
from sightline.results import Failed, Prediction

from clients.commands import client_options, console
from serving.backend.backends import Backends
from serving.backend.grpc_predictor import GrpcPredictor
from serving.backend.predictor import ModelRef
from serving.backend.targets import UNIX
from serving.contract import errors as contract
from serving.contract.card import CARD_FILE, ModelCard, read_card
from serving.contract.errors import ModelFailed
from serving.contract.golden import GoldenExamples, read_golden
from serving.contract.image import decode_image
from serving.contract.image_limits import ImageLimits
from serving.contract.versions import GOLDEN_DIR, version_dirs

Array = npt.NDArray[np.float32]

VERIFY_SECONDS = 300  # TensorFlow takes 5 to 10 s to import, a large model a minute to load


@dataclass(frozen=True, slots=True)
class Target:
    """One version on disk, and the addresses at which it is served. reload: load the SavedModel again.

    grpc_target: None asks the service.
    """

    version: int
    directory: Path
    card: ModelCard
    golden: GoldenExamples
    client: Client
    grpc_target: str | None
    reload: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one stage. ok: None where it could not be tried; difference: the largest, absolute."""

    stage: str
    ok: bool | None
    difference: float | None
    atol: float
    note: str = ""


class Skipped(Exception):
    """A stage that cannot be tried on this machine, and why."""


@click.command(epilog="Example: sightline doctor --model fashion")
@click.option("--model", "-m", "names", multiple=True, help="Name of a model; repeat it for several.")
@click.option("--all", "everything", is_flag=True, help="Examine every model of the folder.")
@click.option(
    "--models", "folder", default="models", show_default=True, type=click.Path(path_type=Path), help="Folder of models."
)
@click.option("--version", type=int, help="Version of the model; by default the one that the service answers with.")
@click.option("--grpc", "grpc_target", help="host:port of the model server.  [default: the one that the service names]")
@click.option("--no-reload", is_flag=True, help="Leave out the stage that loads TensorFlow, which takes a while.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@client_options
def doctor(
    *,
    names: tuple[str, ...],
    everything: bool,
    folder: Path,
    version: int | None,
    grpc_target: str | None,
    no_reload: bool,
    as_json: bool,
    url: str,
    api_key: str | None,
    timeout: float,
) -> None:
    """Replay a model's golden examples through every stage and name the first that differs.

    Exit 0: all equal. 1: a stage differs or fails. 2: there is nothing to replay.
    """
    wanted = _wanted(names, everything, folder)
    healthy = True
    with Client(url, api_key=api_key, timeout=timeout, max_retries=0) as client:
        for name in wanted:
            target = find_version(name, folder, version, client, grpc_target, reload=not no_reload)
            findings = []
            for finding in run_stages(target):
                findings.append(finding)
                if not as_json:
                    console().print(_line(name, finding))
            healthy &= _reported(name, findings, as_json)
    sys.exit(0 if healthy else 1)


def find_version(
    name: str, folder: Path, version: int | None, client: Client, grpc_target: str | None, *, reload: bool = True
) -> Target:
    """Find the version to replay: the one named, the one that the service answers with, or the newest on disk.

    Raises UsageError where it is not on disk, ModelError where its card or its golden examples cannot be read.
    """
    on_disk = {int(path.name): path for path in version_dirs(folder / name)}
    if not on_disk:
        raise UsageError(
            f"There is no version of {name!r} in {folder}.",
            hint=f"Name the folder with --models, or export the model: sightline export {name}.",
        )
    chosen = version or _served_version(client, name) or max(on_disk)
    if chosen not in on_disk:
        raise UsageError(
            f"Version {chosen} of {name!r} is not in {folder}; there are {', '.join(map(str, sorted(on_disk)))}.",
            hint="Does the service serve another folder? Name it with --models, or a version with --version.",
        )
    directory = on_disk[chosen]
    return Target(chosen, directory, read_card(directory), read_golden(directory), client, grpc_target, reload)


def run_stages(target: Target) -> Iterator[Finding]:
    """Yield a finding for each stage, in the order in which a picture travels."""
    for stage, examine in STAGES.items():
        atol = 0.0 if stage == "preprocess" else target.card.golden.atol
        yield _found(stage, atol, lambda examine=examine: examine(target))  # type: ignore[misc]


def recorded(target: Target) -> float:
    """Check the record itself: as many answers as pictures, each a distribution over the card's labels."""
    expected = (len(target.golden.pictures), len(target.card.labels))
    if target.golden.probabilities.shape != expected:
        raise ModelFailed(f"The recorded answers are {target.golden.probabilities.shape}, expected {expected}.")
    if len(target.golden.pictures) != target.card.golden.n:
        raise ModelFailed(f"{expected[0]} pictures are recorded, the card says {target.card.golden.n}.")
    return float(np.abs(target.golden.probabilities.sum(axis=1) - 1).max())


def preprocessed(target: Target) -> float:
    """Compare the tensors of the pictures with the recorded ones, which must be equal to the bit."""
    apply = target.card.preprocessing.apply
    tensors = np.stack([apply(decode_image(picture, ImageLimits())) for picture in target.golden.pictures])
    return _difference(tensors, target.golden.tensors)


def reloaded(target: Target) -> float:
    """Compare the answers of the SavedModel, loaded in a process of its own: clients never import TensorFlow."""
    if not target.reload:
        raise Skipped("--no-reload")
    if find_spec("tensorflow") is None:
        raise Skipped("TensorFlow is not installed")
    command = [sys.executable, "-P", "-m", "export", "verify", str(target.directory), "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=VERIFY_SECONDS, check=False)
    except subprocess.TimeoutExpired as exc:
        raise ModelFailed(f"Reloading took longer than {VERIFY_SECONDS} s.") from exc
    try:
        return float(json.loads(done.stdout)["max_abs_difference"])
    except (ValueError, KeyError, TypeError) as exc:
        raise ModelFailed(f"`export verify` exited {done.returncode}: {done.stderr.strip()[-500:]}") from exc


def over_grpc(target: Target) -> float:
    """Compare the model server's answers to the recorded tensors."""
    backends = Backends(_model_servers(target))
    predictor = GrpcPredictor(backends)
    try:
        served = predictor.describe(ModelRef(target.card.name, version=target.version))
        if served.card != target.card:
            raise ModelFailed(f"The card that is served differs from the one in {target.directory}.")
        scores = predictor.predict(served, target.golden.tensors)
        return _difference(scores.probabilities, target.golden.probabilities)
    finally:
        backends.close()


def _model_servers(target: Target) -> Sequence[str]:
    """Return the addresses of the model server. Raises Skipped where none can be reached from here."""
    if target.grpc_target:
        return (target.grpc_target,)
    try:
        addresses = target.client.ask(calls.backends())
    except SightlineError as exc:
        raise Skipped(f"the service does not name its model server, name it with --grpc: {exc}") from exc
    for address in addresses:
        if address.startswith(UNIX) and not os.access(address.removeprefix(UNIX), os.W_OK):
            raise Skipped(f"{address} belongs to another user or machine: run this there, or `serve --grpc-port`")
    return addresses


def over_http(target: Target) -> float:
    """Compare the gateway's answers to the recorded pictures."""
    outcomes = target.client.predict_many(
        target.golden.pictures, model=target.card.name, top=len(target.card.labels), version=target.version
    )
    rows = [_probabilities(outcome, len(target.card.labels)) for outcome in outcomes]
    return _difference(np.stack(rows), target.golden.probabilities)


STAGES: dict[str, Callable[[Target], float]] = {
    "recorded": recorded,
    "preprocess": preprocessed,
    "SavedModel": reloaded,
    "gRPC": over_grpc,
    "HTTP": over_http,
}


def _found(stage: str, atol: float, examine: Callable[[], float]) -> Finding:
    try:
        difference = examine()
    except Skipped as exc:
        return Finding(stage, None, None, atol, str(exc))
    except (SightlineError, contract.SightlineError) as exc:
        return Finding(stage, False, None, atol, str(exc))
    return Finding(stage, bool(difference <= atol), difference, atol)


def _difference(found: npt.NDArray[np.generic], expected: npt.NDArray[np.generic]) -> float:
    """The largest absolute difference. Raises ModelFailed where the shapes differ."""
    if found.shape != expected.shape:
        raise ModelFailed(f"The answer has shape {found.shape}, recorded is {expected.shape}.")
    return float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0))


def _probabilities(outcome: Prediction | Failed, classes: int) -> Array:
    if isinstance(outcome, Failed):
        raise outcome.error
    row = np.full(classes, np.nan, np.float32)
    for label in outcome.top:
        row[label.index] = label.score
    return row


def _served_version(client: Client, name: str) -> int | None:
    """The version that the service answers with, None where the service cannot be reached."""
    try:
        return client.model(name).version
    except SightlineError:
        return None


def _is_classifier(model_dir: Path) -> bool:
    """Tell a classifier from the face encoder, whose versions have neither a card nor golden examples."""
    versions = version_dirs(model_dir)
    return bool(versions) and any((versions[-1] / part).exists() for part in (CARD_FILE, GOLDEN_DIR))


def _wanted(names: tuple[str, ...], everything: bool, folder: Path) -> list[str]:
    if everything:
        names = tuple(sorted(path.name for path in folder.glob("*") if _is_classifier(path)))
    if not names:
        raise UsageError(
            f"No model is named{' and none is in ' + str(folder) if everything else ''}.",
            hint="Name one with --model, or --all with --models.",
        )
    return list(dict.fromkeys(names))


def _reported(name: str, findings: list[Finding], as_json: bool) -> bool:
    bad = next((finding for finding in findings if finding.ok is False), None)
    if as_json:
        first = bad.stage if bad else None
        click.echo(json.dumps({"model": name, "first_bad": first, "stages": [asdict(row) for row in findings]}))
    elif bad:
        click.echo(f"{name}: {bad.stage} is the first stage that differs.")
    else:
        click.echo(f"{name}: every stage that could be tried agrees.")
    return bad is None


def _line(name: str, finding: Finding) -> str:
    verdict = {True: "[green]ok[/green]     ", False: "[red]DIFFERS[/red]", None: "[dim]skipped[/dim]"}[finding.ok]
    measured = "" if finding.difference is None else f"largest difference {finding.difference:.2e}"
    note = finding.note.replace("[", "\\[")
    return f"{name}  {finding.stage:<10}  {verdict}  {measured} (atol {finding.atol:g}) {note}".rstrip()
