"""`sightline serve`, also `python -m serving`: start the model server and the gateway, and keep them running."""

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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import click
from pydantic import BaseModel

from serving.contract.errors import PortTaken, ProcessDied, UsageError
from serving.contract.versions import GOLDEN_DIR, version_dirs
from serving.faces.settings import FaceSettings, face_variable
from serving.gateway.settings import FACE_FLAGS, Settings, read_settings, require_safe, shown, without_old_names
from serving.supervisor import Child, Supervisor

log = logging.getLogger(__name__)

GUNICORN_CONF = Path(__file__).parent / "gateway" / "gunicorn" / "gunicorn.conf.py"
# glibc keeps a heap for each thread that decodes and returns little of it: with two heaps a worker stays smaller
# (benchmarks/bench_gateway_memory.py)
MALLOC = {"MALLOC_ARENA_MAX": "2"}
GRPC_PORT = 8500  # TensorFlow Serving's
FACE_ENCODER = "face-encoder"  # the model; exported beside the first ones where faces are installed
FACES = ("dlib", "face_recognition_models")
FACE_SOCKET = face_variable("socket")
LONGEST_TMPDIR = 70  # a socket's path has at most 107 bytes, on macOS 103
FIRST_MODELS = ("digits", "fashion")
DATA_NOT_FOUND_EXIT = 2
LOADING = ("START", "LOADING")  # states of a version before it is available
GATEWAY = "gateway"
ENDING_SECONDS = 0.5  # beyond the time for requests in flight
WAITING_TICKS = 50  # answers with the same reason before it is printed


def _setting(flag: str, name: str, model: type[BaseModel] = Settings, **options: Any) -> Callable[[Any], Any]:
    """Make the flag of a setting; help and default are the setting's own. name: of the parameter of `serve`."""
    field = model.model_fields[name.removeprefix(FACE_FLAGS)]
    default = "" if options.get("is_flag") else f"  [default: {field.default}]"
    return click.option(flag, name, help=f"{field.description}{default}", default=None, **options)


@click.command()
@click.option(
    "--models", default="models", show_default=True, type=click.Path(path_type=Path), help="Folder of models."
)
@_setting("--host", "host")
@_setting("--port", "port", type=int)
@_setting("--workers", "workers", type=int)
@click.option(
    "--grpc-port", type=int, help=f"Port of the embedded model server.  [default: {GRPC_PORT}, or a free one]"
)
@click.option("--backend", help="host:port of a TensorFlow Serving, in place of the embedded model server.")
@_setting("--encoder", "faces_encoder", FaceSettings, type=click.Choice(["served", "dlib"]))
@_setting("--preload-faces", "faces_preload", FaceSettings, is_flag=True)
@click.option("--export-if-empty", is_flag=True, help="Export first models if the folder of models is empty.")
@_setting("--insecure", "insecure", is_flag=True)
@_setting("--log-format", "log_format", type=click.Choice(["json", "text"]))
@click.option("--config", type=click.Path(path_type=Path), help="TOML file of settings.  [default: SIGHTLINE_CONFIG]")
@click.option("--show-settings", is_flag=True, help="Print every setting with its value and source, and exit.")
def serve(
    *,
    models: Path,
    grpc_port: int | None,
    export_if_empty: bool,
    show_settings: bool,
    **flags: Any,
) -> None:
    """Start the model server and the gateway, and keep them running until Ctrl-C.

    \b
    sightline serve
    sightline serve --port 9000 --models /srv/models
    sightline serve --backend tfserving:8500
    sightline serve --config sightline.toml --show-settings
    """
    logging.basicConfig(level=logging.INFO, format="sightline: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    given = read_settings(os.environ, flags)
    for warning in given.warnings:
        log.warning("%s", warning)
    if show_settings:
        click.echo(shown(given))
        return
    settings = given.settings
    require_safe(settings)
    require_free_port(settings.host, settings.port, "--port, or PORT=9000 make serve")
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
        environ = {**without_old_names(os.environ), **given.faces.environ(), **settings.environ()}
        if (
            not given.faces.socket and _has_faces()
        ):  # else the operator runs the service, or /faces says how to install it
            environ |= {FACE_SOCKET: str(sockets / "faces")}
            children.append(Child("face service", [sys.executable, "-m", "serving.faces"], environ))
        supervisor = Supervisor([*children, _gateway(settings, environ)], _Announcing(url, models, settings))
        _run(supervisor, reloads=settings.key_file is not None)


@contextlib.contextmanager
def _folder_of_sockets() -> Iterator[Path]:
    """Yield a new folder that only this user can enter."""
    where = tempfile.gettempdir()
    with tempfile.TemporaryDirectory(prefix="sightline-", dir=where if len(where) < LONGEST_TMPDIR else "/tmp") as name:
        yield Path(name)


def require_free_port(host: str, port: int, flag: str) -> None:
    """Raise PortTaken unless a process can listen there now. host: a name or an address."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as exc:
        raise PortTaken(
            f"Cannot listen on {host} port {port}: {exc.strerror}.",
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
        click.echo(f"gRPC port {GRPC_PORT} is taken; the model server listens on {port}.")
        return port
    return GRPC_PORT


def _model_server(models: Path, settings: Settings, environ: Mapping[str, str]) -> Child:
    if importlib.util.find_spec("tensorflow") is None:
        raise UsageError(
            "The embedded model server needs TensorFlow, which is not installed.",
            hint="Install it: pip install 'sightline-serving[model-server] @ file:///path/to/clone'. Or name a "
            "TensorFlow Serving with --backend host:8500.",
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


def _has_faces() -> bool:
    return all(importlib.util.find_spec(package) is not None for package in FACES)


def _gateway(settings: Settings, environ: Mapping[str, str]) -> Child:
    command = [sys.executable, "-m", "gunicorn", "--config", str(GUNICORN_CONF)]
    stop_seconds = settings.drain_seconds + settings.stop_seconds + ENDING_SECONDS
    return Child(GATEWAY, command, {**MALLOC, **environ, **settings.environ()}, stop_seconds)


def _export_first_models(models: Path) -> None:
    """Export models for a first try, in child processes: this process never loads TensorFlow."""
    if _has_faces() and not version_dirs(models / FACE_ENCODER):
        _export(FACE_ENCODER, models)
    if _has_classifier(models):
        return
    click.echo(
        f"{models} is empty: exporting first models ({', '.join(FIRST_MODELS)}). This happens once and takes minutes."
    )
    for family in FIRST_MODELS:
        _export(family, models)
    if not _has_classifier(models):
        raise ProcessDied("No first model could be exported.", hint="See above, or export one: sightline export --help")


def _export(family: str, models: Path) -> None:
    done = subprocess.run([sys.executable, "-P", "-m", "export", family, "--out", str(models)], check=False)
    if done.returncode not in (0, DATA_NOT_FOUND_EXIT):
        raise ProcessDied(f"The export of {family} ended with status {done.returncode}.", hint="See above.")


def _has_classifier(models: Path) -> bool:
    return models.is_dir() and any(version_dirs(model) for model in models.iterdir() if model.name != FACE_ENCODER)


class _Announcing:
    """Poll the gateway, and print once that it is ready, or the reason while it is not."""

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
        """Return True while some version is loading: worth waiting for before the models are listed.

        False where this is unknown: the gateway is overloaded or wants an API key.
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
    """Run until a signal to stop. reloads: SIGHUP makes the gateway read its keys again; else it ends the service."""

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
