"""The first models of a new service: exported beside it, one after the other, while it runs already.

Exports are child processes: the service never loads TensorFlow for them. What is still to be exported is in a file in
the folder of models, so that a service that was stopped meanwhile goes on at its next start.
"""

import importlib.util
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from serving.contract.exports import ExportState, read_state, write_state
from serving.contract.versions import GOLDEN_DIR, version_dirs
from serving.supervisor import STOP_SECONDS, end_with_parent

log = logging.getLogger(__name__)

FIRST_MODELS = ("imagenet", "digits")
DEMO_MODELS = ("fashion",)  # with --demo
FACE_ENCODER = "face-encoder"  # exported where faces are installed
FACES = ("dlib", "face_recognition_models")
PENDING_FILE = ".first-models"  # in the folder of models: a name per line
LOWEST_PRIORITY = 19  # of the exports that a service with a model does not wait for
TOLD_SHARE = 0.25  # the console tells each quarter of a training
MOST_LINES = 12  # of a failed export, where it does not say what is wrong

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "docs" / "samples"  # in a clone
SAMPLE_OF = {"imagenet": "coffee.jpg", "digits": "four.jpg"}


def has_faces() -> bool:
    """The packages of faces are installed."""
    return all(importlib.util.find_spec(package) is not None for package in FACES)


def has_classifier(models: Path) -> bool:
    """The folder holds a version of some model that classifies images."""
    return models.is_dir() and any(version_dirs(model) for model in models.iterdir() if model.name != FACE_ENCODER)


def first_models(models: Path, *, demo: bool, faces: bool) -> list[str]:
    """List the models to export: those left over from the last start, or the first ones where there is no model.

    demo: also fashion. faces: also the face encoder. Models that have a version are left out.
    """
    pending = models / PENDING_FILE
    left = pending.read_text(encoding="utf-8").split() if pending.is_file() else []
    if not left and not has_classifier(models):
        left = list(FIRST_MODELS)
    known = [*FIRST_MODELS, *DEMO_MODELS]
    wanted = [name for name in known if name in left or (demo and name in DEMO_MODELS)]
    wanted += [FACE_ENCODER] if faces else []
    return [name for name in wanted if not version_dirs(models / name)]


def curl_line(url: str, name: str, models: Path) -> str | None:
    """Write the request to try a model with: a sample image of the clone, or of the version. None without an image."""
    if name == FACE_ENCODER:
        return None
    sample = SAMPLES / SAMPLE_OF.get(name, "none")
    versions = version_dirs(models / name)
    golden = sorted((versions[-1] / GOLDEN_DIR).glob("*.png")) if versions else []
    picture = next((path for path in (sample, *golden) if path.is_file()), None)
    if picture is None:
        return None
    here = Path.cwd()
    shown = picture.relative_to(here) if picture.is_relative_to(here) else picture
    return f"curl -F image=@{shlex.quote(str(shown))} {url}/predict/{name}"


class FirstModels:
    """Exports in a queue, one at a time. `tick` is called often and never waits.

    The first one has the service's own priority where there is no model yet, the others the lowest. One that fails is
    printed once, with its reason, and not tried again.

    folder: for the states that the gateway reads, and for the exports' logs. url: of the service, for people.
    """

    def __init__(
        self, models: Path, names: Sequence[str], folder: Path, *, url: str, environ: Mapping[str, str]
    ) -> None:
        self._models = models
        self._folder = folder
        self._url = url
        self._environ = {**environ, "PYTHONSAFEPATH": "1"}
        self._first = None if has_classifier(models) else next(iter(names), None)  # the service waits for it
        self._waiting = list(names)
        self._files = {name: folder / f"{index}-{name}.json" for index, name in enumerate(names)}
        self._process: subprocess.Popen[bytes] | None = None
        self._told = 0.0
        folder.mkdir(exist_ok=True)
        for name, file in self._files.items():
            write_state(file, ExportState(name, "waiting"))
        self._remember()

    def tick(self) -> None:
        """Start the next export, or notice that the running one has ended."""
        if not self._waiting:
            return
        if self._process is None:
            self._start(self._waiting[0])
        elif self._process.poll() is None:
            self._tell_progress(self._waiting[0])
        else:
            name = self._waiting.pop(0)
            self._ended(name, self._process.returncode)
            self._process = None
            self._remember()

    def stop(self) -> None:
        """End the running export; it goes on at the next start."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self, name: str) -> None:
        niceness = 0 if name == self._first else LOWEST_PRIORITY
        self._told = 0.0

        def in_child() -> None:
            end_with_parent()
            os.nice(niceness)

        write_state(self._files[name], ExportState(name, "running", "starting"))
        click.echo(f"Exporting {name}{'' if niceness == 0 else ' in the background'} ...")
        command = [sys.executable, "-m", "export", "--progress-file", str(self._files[name]), name]
        with self._log(name).open("wb") as output:
            self._process = subprocess.Popen(
                [*command, "--out", str(self._models)],
                env=self._environ,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=in_child,  # noqa: PLW1509 - the supervisor has one thread
            )

    def _tell_progress(self, name: str) -> None:
        state = read_state(self._files[name])
        if state.progress is not None and state.progress >= self._told + TOLD_SHARE:
            self._told = state.progress
            click.echo(f"Exporting {name}: {state.detail}")

    def _ended(self, name: str, status: int) -> None:
        if status == 0:
            self._files[name].unlink()
            if name == self._first:  # its request was printed when the service became ready
                return
            curl = curl_line(self._url, name, self._models)
            click.echo(f"{name} is exported and served at {self._url}." + (f" Try it:\n  {curl}" if curl else ""))
            return
        reason = _reason(self._log(name).read_text(encoding="utf-8", errors="replace"))
        write_state(self._files[name], ExportState(name, "failed", reason))
        log.error(
            "%s could not be exported (status %d); the service goes on without it. %s\n  To try again: %s",
            *(name, status, reason, shlex.join(["sightline", "export", name, "--out", str(self._models)])),
        )

    def _log(self, name: str) -> Path:
        return self._files[name].with_suffix(".log")

    def _remember(self) -> None:
        """Keep the names of what is still to be exported for the next start."""
        pending = self._models / PENDING_FILE
        names = [name for name in self._waiting if name != FACE_ENCODER]
        if names:
            pending.write_text("\n".join(names) + "\n", encoding="utf-8")
        else:
            pending.unlink(missing_ok=True)


def _reason(output: str) -> str:
    """Find what a failed export said: the lines from `sightline: ` on, else its last lines."""
    lines = output.strip().splitlines()
    starts = [index for index, line in enumerate(lines) if line.startswith("sightline: ")]
    if starts:
        return " ".join(line.strip() for line in lines[starts[-1] :]).removeprefix("sightline: ")
    return "\n".join(lines[-MOST_LINES:])
