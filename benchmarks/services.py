"""The services that are measured, and how to start each: Sightline, its limit, and the peers in their environments."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serving.contract.versions import version_dirs

ROOT = Path(__file__).parents[1]
PEERS = Path(__file__).parent / "peers"
ENVIRONMENTS = ROOT / ".venv-peers"
START_SECONDS = 180.0
STOP_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Service:
    """One service to measure. {port}, {grpc_port}, {models} and {model} are filled in.

    environment: the peer's, in ENVIRONMENTS; "" is our own. predict, ready: paths. batches: whether it merges requests.
    form: it takes only forms. one_model: a process serves one model.
    """

    name: str
    command: tuple[str, ...]
    predict: str = "/predict"
    ready: str = "/ready"
    environment: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    batches: bool = False
    form: bool = False
    one_model: bool = True

    @property
    def python(self) -> Path:
        """Path of its interpreter."""
        return ENVIRONMENTS / self.environment / "bin" / "python" if self.environment else Path(sys.executable)

    @property
    def is_installed(self) -> bool:
        """Its environment exists (`make bench-peers` makes it)."""
        return self.python.exists()


GUNICORN = ("-m", "gunicorn", "--no-control-socket", "-b", "127.0.0.1:{port}", "-w", "2", "--keep-alive", "75")
SIGHTLINE = Service(
    "Sightline",
    ("-m", "serving", "--models", "{models}", "--port", "{port}", "--grpc-port", "{grpc_port}"),
    predict="/predict/{model}",
    ready="/v2/models/{model}/ready",
    batches=True,
    one_model=False,
)
CEILING = Service(
    "ceiling (constant answer)",
    (*GUNICORN, "-k", "gevent", "benchmarks.ceiling:app"),
    predict="/predict/{model}",
    ready="/healthz",
    one_model=False,
)
UVICORN = ("-m", "uvicorn", "fastapi_app:app", "--port", "{port}", "--workers", "2", "--no-access-log")
FLASK = (*GUNICORN, "-k", "gthread", "--threads", "16", "flask_app:app")
PEER_SERVICES = (
    Service("FastAPI, in-process", UVICORN, environment="inprocess"),
    Service("Flask, in-process", FLASK, environment="inprocess"),
    Service("LitServe", ("litserve_app.py",), environment="litserve", batches=True, form=True),
    Service(
        "BentoML",
        ("-m", "bentoml", "serve", "bentoml_app:Front", "--port", "{port}"),
        environment="bentoml",
        batches=True,
    ),
)


@dataclass(frozen=True, slots=True)
class Running:
    """A running service. url: of one model's predictions; pid: its first process.

    listened, started: seconds until somebody listened, and until the model answered.
    """

    url: str
    listened: float
    started: float
    pid: int

    def processes(self) -> list[int]:
        """List the ids of all its processes."""
        return descendants(self.pid)


@contextlib.contextmanager
def running(service: Service, models: Path, model: str, logs: Path) -> Iterator[Running]:
    """Start a service, wait until it answers for the model, and end all its processes afterwards.

    logs: the folder for its output. Raises RuntimeError when it does not start.
    """
    port = free_port()
    version = version_dirs(models / model)[-1]
    values = {"port": port, "grpc_port": free_port(), "models": models.absolute(), "model": model}
    command = [str(service.python), *(part.format(**values) for part in service.command)]
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SIGHTLINE_", "PROMETHEUS_"))},
        "SIGHTLINE_LOG_LEVEL": "WARNING",
        "PYTHONDONTWRITEBYTECODE": "",  # a start that compiles TensorFlow would not be comparable
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PORT": str(port),
        "PEER_MODEL": str(version.absolute()),
        **service.environ,
    }
    folder = PEERS if service.environment else ROOT
    started = time.monotonic()
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / f"{service.name.split(',')[0].split()[0]}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    base = f"http://127.0.0.1:{port}"
    try:
        listened = 0.0
        while not _answers(base + service.ready.format(**values)):
            if not listened and _listens(port):
                listened = time.monotonic() - started
            if process.poll() is not None or time.monotonic() - started > START_SECONDS:
                raise RuntimeError(f"{service.name} did not start: {' '.join(command)}")
            time.sleep(0.02)
        took = time.monotonic() - started
        yield Running(base + service.predict.format(**values), listened or took, took, process.pid)
    finally:
        _end(process)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def descendants(pid: int) -> list[int]:
    """List a process and all its descendants."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listing.splitlines())}
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


def memory_bytes(pids: list[int]) -> int:
    """Sum the processes' memory, with shared pages counted once (PSS)."""
    return sum(_memory_of(pid) for pid in pids)


def _memory_of(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _listens(port: int) -> bool:
    """Say whether a worker answers, with any status. A connection alone proves nothing: the arbiter accepts it."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt the service, then kill those of its own processes that are left."""
    left = descendants(process.pid) if process.poll() is None else []
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
