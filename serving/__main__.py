"""`sightline serve`, also `python -m serving`: start the model server and the gateway, and keep them running."""

import contextlib
import difflib
import importlib.util
import logging
import os
import shlex
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import click
from pydantic import BaseModel

from serving.backend.targets import UNIX
from serving.contract.errors import PortTaken, UsageError
from serving.contract.exports import read_states
from serving.contract.logs import configure
from serving.contract.served_at import remove_address, write_address
from serving.faces.settings import FaceSettings, face_variable
from serving.first_models import SAMPLE_OF, FirstModels, curl_line, first_models, has_faces
from serving.gateway.settings import (
    ARBITER_BEAT,
    FACE_FLAGS,
    Settings,
    read_settings,
    require_safe,
    shown,
    url_host,
    without_old_names,
)
from serving.local_calls.frames import LENGTH
from serving.supervisor import Child, FileCheck, SocketCheck, Supervisor

log = logging.getLogger(__name__)

GUNICORN_CONF = Path(__file__).parent / "gateway" / "gunicorn" / "gunicorn.conf.py"
# glibc keeps a heap for each thread that decodes and returns little of it: with two heaps a worker stays smaller
# (benchmarks/bench_gateway_memory.py)
MALLOC = {"MALLOC_ARENA_MAX": "2"}
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # all addresses of this machine, and one of them
FACE_SOCKET = face_variable("socket")
LONGEST_TMPDIR = 70  # a socket's path has at most 107 bytes, on macOS 103
MODELS = Path("models")
QUIET = {"GRPC_VERBOSITY": "NONE"}  # gRPC's C++ writes to stderr in its own form; Python gets every error
GATEWAY = "gateway"
ENDING_SECONDS = 0.5  # beyond the time for requests in flight
WAITING_TICKS = 50  # answers with the same reason before it is printed


def _setting(flag: str, name: str, model: type[BaseModel] = Settings, **options: Any) -> Callable[[Any], Any]:
    """Make the flag of a setting; help and default are the setting's own. name: of the parameter of `serve`."""
    field = model.model_fields[name.removeprefix(FACE_FLAGS)]
    default = "" if options.get("is_flag") else f"  [default: {field.default}]"
    return click.option(flag, name, help=f"{field.description}{default}", default=None, **options)


@click.command()
@click.option("--models", default=MODELS, show_default=True, type=click.Path(path_type=Path), help="Folder of models.")
@_setting("--host", "host")
@_setting("--port", "port", type=int)
@_setting("--workers", "workers", type=int)
@click.option("--grpc-port", type=int, help="Port of 127.0.0.1 for the embedded model server's gRPC.  [default: none]")
@click.option("--rest-port", type=int, help="Port of 127.0.0.1 for the embedded model server's REST.  [default: none]")
@click.option("--backend", help="host:port of a TensorFlow Serving, in place of the embedded model server.")
@_setting("--encoder", "faces_encoder", FaceSettings, type=click.Choice(["served", "dlib"]))
@_setting("--preload-faces", "faces_preload", FaceSettings, is_flag=True)
@click.option(
    "--export-if-empty", is_flag=True, help="Export first models, beside the service, if the folder of models is empty."
)
@click.option("--demo", is_flag=True, help="The same, and fashion, too, in any case.")
@_setting("--insecure", "insecure", is_flag=True)
@_setting("--log-format", "log_format", type=click.Choice(["json", "text"]))
@click.option("--config", type=click.Path(path_type=Path), help="TOML file of settings.  [default: SIGHTLINE_CONFIG]")
@click.option("--show-settings", is_flag=True, help="Print every setting with its value and source, and exit.")
def serve(
    *,
    models: Path,
    grpc_port: int | None,
    rest_port: int | None,
    export_if_empty: bool,
    demo: bool,
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
    given = read_settings(os.environ, flags)
    if show_settings:
        for warning in given.warnings:
            log.warning("%s", warning)
        click.echo(shown(given))
        return
    settings = given.settings
    require_safe(settings)
    is_embedded = given.sources["backend"] == "default"
    exports_first = export_if_empty or demo
    if is_embedded:
        _require_folder(models, create=exports_first and models == MODELS)
    require_free_port(settings.host, settings.port, "--port, or PORT=9000 make serve")
    url = f"http://{url_host(ANY_ADDRESS.get(settings.host, settings.host))}:{settings.port}"
    configure(settings.log_format, settings.log_level)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for warning in given.warnings:
        log.warning("%s", warning)
    with _folder_of_sockets() as sockets:
        children, background = [], None
        if is_embedded:
            for flag, port in (("--grpc-port", grpc_port), ("--rest-port", rest_port)):
                if port is not None:
                    require_free_port("127.0.0.1", port, flag)
            predict_socket = settings.backend_socket or str(sockets / "predict")
            exports = settings.exports_dir or str(sockets / "exports")
            settings = settings.model_copy(
                update={
                    "backend": f"{UNIX}{sockets / 'grpc'}",
                    "backend_socket": predict_socket,
                    "exports_dir": exports,
                }
            )
            children.append(_model_server(models, settings, os.environ, grpc_port or 0, rest_port or 0))
            names = first_models(models, demo=demo, faces=has_faces()) if exports_first else []
            if names:
                background = FirstModels(models, names, Path(exports), url=url, environ=os.environ)
        environ = {**without_old_names(os.environ), **given.faces.environ(), **settings.environ()}
        if (
            not given.faces.socket and has_faces()
        ):  # else the operator runs the service, or /faces says how to install it
            face_socket = str(sockets / "faces")
            environ |= {FACE_SOCKET: face_socket}
            check = SocketCheck(face_socket, LENGTH.pack(0))
            children.append(Child("face service", [sys.executable, "-m", "serving.faces"], environ, check=check))
        announcing = _Announcing(url, models, settings.exports_folder)
        supervisor = Supervisor([*children, _gateway(settings, environ, sockets / "arbiter")], announcing, background)
        try:
            _run(supervisor, reloads=settings.key_file is not None)
        finally:
            if is_embedded:
                remove_address(models)


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


def _require_folder(models: Path, *, create: bool) -> None:
    """Raise UsageError, naming the nearest folder, where there is no folder of models. create: make it instead."""
    if models.is_dir():
        return
    if create:
        models.mkdir()
        return
    parent = next(folder for folder in models.absolute().parents if folder.is_dir())
    missing = models.absolute().relative_to(parent).parts[0]
    beside = difflib.get_close_matches(missing, [path.name for path in parent.iterdir() if path.is_dir()], n=1)
    nearest = parent / beside[0] if beside else parent
    raise UsageError(
        f"The folder of models {models} does not exist; the nearest that does is {nearest}.",
        hint="Name the folder that holds your models with --models, or make it: mkdir -p " + shlex.quote(str(models)),
    )


def _model_server(
    models: Path, settings: Settings, environ: Mapping[str, str], grpc_port: int, rest_port: int
) -> Child:
    """Make the embedded model server: on sockets that this user alone reaches, and on ports where they are not 0."""
    if importlib.util.find_spec("tensorflow") is None:
        raise UsageError(
            "The embedded model server needs TensorFlow, which is not installed.",
            hint="Install it: pip install 'sightline-serving[model-server] @ file:///path/to/clone'. Or name a "
            "TensorFlow Serving with --backend host:8500.",
        )
    command = [
        sys.executable,
        "-m",
        "serving.model_server",
        "--models",
        str(models),
        "--port",
        str(grpc_port),
        "--rest_api_port",
        str(rest_port),
        "--grpc_socket_path",
        settings.backend.removeprefix(UNIX),
        "--enable_batching",
        "--enable_grpc_healthcheck_service",
        "--tensorflow_intra_op_parallelism",
        str(settings.model_threads),
        "--predict_socket_path",
        settings.backend_socket,
        "--log_format",
        settings.log_format,
    ]
    check = SocketCheck(settings.backend_socket, LENGTH.pack(0))
    return Child("model server", command, {**QUIET, **environ}, check=check)


def _gateway(settings: Settings, environ: Mapping[str, str], beat: Path) -> Child:
    """Make the gateway. beat: a file that its arbiter touches once a second."""
    command = [sys.executable, "-m", "gunicorn", "--config", str(GUNICORN_CONF)]
    stop_seconds = settings.drain_seconds + settings.stop_seconds + ENDING_SECONDS
    whole = {**MALLOC, **QUIET, **environ, **settings.environ(), ARBITER_BEAT: str(beat)}
    return Child(GATEWAY, command, whole, stop_seconds, FileCheck(beat))


class _Announcing:
    """Poll the gateway, and print once that it is ready, or the reason while it is not."""

    def __init__(self, url: str, models: Path, exports: Path | None = None) -> None:
        self._url = url
        self._models = models
        self._exports = exports
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
            if self._exports:  # the folder is served from this machine
                write_address(self._models, self._url)
            click.echo(_banner(self._url, self._models, self._exports, answer.json()["models"]))
            return True
        reason = answer.json().get("detail", answer.text)
        self._times[reason] += 1
        if self._times[reason] == WAITING_TICKS:
            click.echo(f"Not ready yet: {reason}")
        return False


def _banner(url: str, models: Path, exports_folder: Path | None, names: list[str]) -> str:
    lines = [f"Sightline is ready at {url} with {', '.join(names)}."]
    by_sample = sorted(names, key=lambda name: name not in SAMPLE_OF)  # stable: those with a photo of the clone first
    curl = next(filter(None, (curl_line(url, name, models) for name in by_sample)), None)
    lines += ["Open that address in a browser, or try it in another terminal:", f"  {curl}"] if curl else []
    exports = [state for state in read_states(exports_folder) if state.model not in names]
    if exports:
        lines.append(f"Not there yet: {', '.join(map(str, exports))}. {url}/readyz tells how far they are.")
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
