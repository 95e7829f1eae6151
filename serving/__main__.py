"""`sightline serve`, also `python -m serving`: the model server and the gateway, started and kept running."""

import contextlib
import importlib.util
import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import click

from serving.contract.errors import PortTaken, ProcessDied, UsageError
from serving.contract.versions import GOLDEN_DIR, version_dirs
from serving.gateway.settings import Settings, read_settings, require_safe, shown
from serving.supervisor import Child, Supervisor

GUNICORN_CONF = Path(__file__).parent / "gateway" / "gunicorn" / "gunicorn.conf.py"
# glibc keeps heaps for each thread that decodes, and gives little of them back: with two a worker stays smaller
# (benchmarks/bench_gateway_memory.py)
MALLOC = {"MALLOC_ARENA_MAX": "2"}
GRPC_PORT = 8500  # TensorFlow Serving's
FACE_ENCODER = "face-encoder"  # the model; exported beside the first ones where faces are installed
FACES = ("dlib", "face_recognition_models")
FACE_SOCKET = "SIGHTLINE_FACES_SOCKET"
LONGEST_TMPDIR = 70  # a socket's path has at most 107 bytes, on macOS 103
FIRST_MODELS = ("digits", "fashion")
DATA_NOT_FOUND_EXIT = 2
LOADING = ("START", "LOADING")  # states of a version that is on its way
GATEWAY = "gateway"
ENDING_SECONDS = 0.5  # beyond what requests in flight are given
WAITING_TICKS = 50  # answers with the same reason before it is said


@click.command()
@click.option(
    "--models", default="models", show_default=True, type=click.Path(path_type=Path), help="Folder of models."
)
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on.  [default: 8000]")
@click.option("--workers", type=int, help="Gateway processes.  [default: 2]")
@click.option(
    "--grpc-port", type=int, help=f"Port of the embedded model server.  [default: {GRPC_PORT}, or a free one]"
)
@click.option("--backend", help="host:port of a TensorFlow Serving to use in place of the embedded model server.")
@click.option("--encoder", type=click.Choice(["served", "dlib"]), help="Who encodes faces.  [default: served]")
@click.option("--preload-faces", is_flag=True, help="Load the face models at start, not at the first photo.")
@click.option("--export-if-empty", is_flag=True, help="Export a first model when the folder of models is empty.")
@click.option("--insecure", is_flag=True, default=None, help="Listen on an address that others reach without API keys.")
@click.option("--log-format", type=click.Choice(["json", "text"]), help="How requests are logged.  [default: json]")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file of settings.  [default: SIGHTLINE_CONFIG]")
@click.option("--show-settings", is_flag=True, help="Print every setting, its value and where it came from.")
def serve(
    *,
    models: Path,
    grpc_port: int | None,
    encoder: str | None,
    preload_faces: bool,
    export_if_empty: bool,
    show_settings: bool,
    **flags: Any,
) -> None:
    """Start the model server and the gateway, and keep both running until Ctrl-C.

    \b
    sightline serve
    sightline serve --port 9000 --models /srv/models
    sightline serve --backend tfserving:8500
    sightline serve --config sightline.toml --show-settings
    """
    logging.basicConfig(level=logging.INFO, format="sightline: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    given = read_settings(os.environ, flags)
    if show_settings:
        click.echo(shown(given))
        return
    settings = given.settings
    require_safe(settings)
    require_free_port(settings.host, settings.port, "--port, PORT=9000 make serve")
    is_embedded = given.sources["backend"] == "default"
    if is_embedded and export_if_empty:
        _export_first_models(models)
    url = f"http://{'127.0.0.1' if settings.host in ('0.0.0.0', '::') else settings.host}:{settings.port}"
    with _folder_of_sockets() as sockets:
        children = []
        if is_embedded:
            backend = f"127.0.0.1:{_embedded_port(grpc_port)}"
            predict_socket = settings.backend_socket or str(sockets / "predict")
            settings = settings.model_copy(update={"backend": backend, "backend_socket": predict_socket})
            children.append(_model_server(models, settings, os.environ))
        environ = _face_environ(encoder, preload_faces, {**os.environ, **settings.environ()})
        if not environ.get(FACE_SOCKET) and _has_faces():  # else one is named, or /faces says how to install them
            environ = {**environ, FACE_SOCKET: str(sockets / "faces")}
            children.append(Child("face service", [sys.executable, "-m", "serving.faces"], environ))
        supervisor = Supervisor([*children, _gateway(settings, environ)], _Announcing(url, models, settings))
        _run(supervisor, reloads=settings.key_file is not None)


@contextlib.contextmanager
def _folder_of_sockets() -> Iterator[Path]:
    """A new folder, for this user alone."""
    where = tempfile.gettempdir()
    with tempfile.TemporaryDirectory(prefix="sightline-", dir=where if len(where) < LONGEST_TMPDIR else "/tmp") as name:
        yield Path(name)


def require_free_port(host: str, port: int, flag: str) -> None:
    """Raise PortTaken when nobody could listen there now. host: a name or an address."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as exc:
        raise PortTaken(
            f"cannot listen on {host} port {port}: {exc.strerror}",
            hint=f"Another Sightline may be running: stop it, or choose another port ({flag}).",
        ) from exc


def _embedded_port(wanted: int | None) -> int:
    if wanted is not None:
        require_free_port("127.0.0.1", wanted, "--grpc-port")
        return wanted
    try:
        require_free_port("127.0.0.1", GRPC_PORT, "--grpc-port")
    except PortTaken:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        click.echo(f"gRPC port {GRPC_PORT} is taken: the model server listens on {port}.")
        return port
    return GRPC_PORT


def _model_server(models: Path, settings: Settings, environ: Mapping[str, str]) -> Child:
    if importlib.util.find_spec("tensorflow") is None:
        raise UsageError(
            "the embedded model server needs TensorFlow, which is not installed",
            hint="Install sightline[tensorflow], or name a TensorFlow Serving with --backend host:8500.",
        )
    models.mkdir(parents=True, exist_ok=True)
    port = settings.backend.rpartition(":")[2]
    command = [
        sys.executable,
        "-m",
        "serving.model_server",
        "--models",
        str(models),
        "--port",
        port,
        "--enable_batching",
        "--enable_grpc_healthcheck_service",
        "--tensorflow_intra_op_parallelism",
        str(settings.model_threads),
        "--predict_socket_path",
        settings.backend_socket,
    ]
    return Child("model server", command, environ)


def _face_environ(encoder: str | None, preload: bool, environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment with what the flags say of faces."""
    given = {"SIGHTLINE_FACES_ENCODER": encoder, "SIGHTLINE_FACES_PRELOAD": "true" if preload else None}
    return {**environ, **{name: value for name, value in given.items() if value is not None}}


def _has_faces() -> bool:
    return all(importlib.util.find_spec(package) is not None for package in FACES)


def _gateway(settings: Settings, environ: Mapping[str, str]) -> Child:
    command = [sys.executable, "-m", "gunicorn", "--config", str(GUNICORN_CONF)]
    stop_seconds = settings.drain_seconds + settings.stop_seconds + ENDING_SECONDS
    return Child(GATEWAY, command, {**MALLOC, **environ, **settings.environ()}, stop_seconds)


def _export_first_models(models: Path) -> None:
    """Export what a newcomer can try, in a process of its own: this one never loads TensorFlow."""
    if _has_faces() and not version_dirs(models / FACE_ENCODER):
        _export(FACE_ENCODER, models)
    if _has_classifier(models):
        return
    click.echo(f"{models} is empty: exporting first models ({', '.join(FIRST_MODELS)}), once; it takes minutes.")
    for family in FIRST_MODELS:
        _export(family, models)
    if not _has_classifier(models):
        raise ProcessDied("no first model could be exported", hint="See above, or export one: sightline export --help")


def _export(family: str, models: Path) -> None:
    done = subprocess.run([sys.executable, "-P", "-m", "export", family, "--out", str(models)], check=False)
    if done.returncode not in (0, DATA_NOT_FOUND_EXIT):
        raise ProcessDied(f"the export of {family} ended with status {done.returncode}", hint="See above.")


def _has_classifier(models: Path) -> bool:
    return models.is_dir() and any(version_dirs(model) for model in models.iterdir() if model.name != FACE_ENCODER)


class _Announcing:
    """Asks the gateway whether it is ready, says so once, and says why while it is not."""

    def __init__(self, url: str, models: Path, settings: Settings) -> None:
        self._url = url
        self._models = models
        self._settings = settings
        self._times = Counter[str]()
        self._client: Any = None

    def __call__(self) -> bool:
        import httpx  # while the processes start, not before

        self._client = self._client or httpx.Client(timeout=2.0, trust_env=False)
        try:
            answer = self._client.get(f"{self._url}/readyz")
        except httpx.TransportError:
            return False
        if answer.status_code == httpx.codes.OK:
            self._times["ready"] += 1
            if self._times["ready"] < WAITING_TICKS and self._is_loading():
                return False
            click.echo(_banner(self._url, self._models, self._settings, answer.json()["models"]))
            return True
        reason = answer.json().get("detail", answer.text)
        self._times[reason] += 1
        if self._times[reason] == WAITING_TICKS:
            click.echo(f"Not ready yet: {reason}")
        return False

    def _is_loading(self) -> bool:
        """Some model has a version that is on its way: worth a moment before the models are named.

        False where nobody can tell: the gateway has too much to do, or answers only those who have a key.
        """
        import httpx

        try:
            answer = self._client.get(f"{self._url}/models")
        except httpx.TransportError:
            return False
        models = answer.json()["models"] if answer.status_code == httpx.codes.OK else ()
        return any(version["state"] in LOADING for model in models for version in model["versions"])


def _banner(url: str, models: Path, settings: Settings, names: list[str]) -> str:
    lines = [f"Sightline is ready at {url} with {', '.join(names)} (model server: gRPC {settings.backend})."]
    for name in names:
        versions = version_dirs(models / name)
        pictures = sorted((versions[-1] / GOLDEN_DIR).glob("*.png")) if versions else []
        if pictures:
            lines += ["Try it:", f"  curl -F image=@{shlex.quote(str(pictures[0]))} {url}/predict/{name}"]
            break
    return "\n".join([*lines, "Ctrl-C stops it."])


def _run(supervisor: Supervisor, *, reloads: bool) -> None:
    """Until told to stop. reloads: SIGHUP has the gateway read its keys again; else a closed terminal ends all."""

    def reload(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
        supervisor.signal(GATEWAY, signal.SIGHUP)

    def stop(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
        supervisor.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if reloads:
        signal.signal(signal.SIGHUP, reload)
    supervisor.run()
    click.echo("Stopped.")


if __name__ == "__main__":
    from sightline.cli import run

    run(serve, "python -m serving")
