"""The whole path, for real: exported models, the embedded model server, gunicorn, and Keras in this process."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.exported_models import Exported, exported_models
from tests.gateway.gateway_process import children_of

ROOT = Path(__file__).parents[2]
START_SECONDS = 120.0


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Digits (MNIST, or scikit-learn's where there is no data), and fashion where its data is there."""
    pytest.importorskip("tensorflow", reason="the extra `tensorflow` is not installed")
    return exported_models(tmp_path_factory.mktemp("exported"))


@dataclass
class Service:
    """`sightline serve`, running. lines: what it has printed."""

    process: subprocess.Popen[str]
    url: str
    grpc: str
    models: Path
    lines: list[str]

    def children(self) -> dict[str, int]:
        """Process ids by name: the model server, gunicorn's arbiter, and the face service where faces are installed."""
        listing = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=True
        ).stdout
        rows = [line.split(maxsplit=1) for line in listing.splitlines()]
        names = {"serving.model_server": "model server", "gunicorn": "gateway", "serving.faces": "face service"}
        return {names[key]: int(pid) for pid, args in rows for key in names if key in args}

    def workers(self) -> list[int]:
        """Process ids of the gateway's workers, of which there are none while it starts."""
        arbiter = self.children().get("gateway")
        return [] if arbiter is None else children_of(arbiter)

    def wait_until(self, holds: Callable[[], Any], seconds: float = 30.0) -> Any:
        """Ask until the answer is true. Fails the test when it never is."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if answer := holds():
                    return answer
            time.sleep(0.05)
        raise AssertionError(f"still not after {seconds} s; the log ends: {self.lines[-15:]}")


def start_service(models: Path, *flags: str, cwd: Path = ROOT, **environ: str) -> Service:
    """Start it on free ports and wait for its banner. environ: added to this process's."""
    port, grpc_port = free_port(), free_port()
    command = [sys.executable, "-m", "serving", "--models", str(models), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--grpc-port", str(grpc_port), *flags],
        cwd=cwd,
        env={**os.environ, **environ, "SIGHTLINE_FACES_URL": f"sqlite:///{models.parent / 'faces.db'}"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    lines: list[str] = []
    assert process.stdout is not None
    threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True).start()
    service = Service(process, f"http://127.0.0.1:{port}", f"127.0.0.1:{grpc_port}", models, lines)
    try:
        service.wait_until(
            lambda: process.poll() is not None or any("is ready" in line for line in lines), START_SECONDS
        )
    except BaseException:
        stop_service(service)
        raise
    assert process.poll() is None, "".join(lines)
    return service


def stop_service(service: Service) -> float:
    """Ctrl-C. Returns the seconds until everything had ended."""
    started = time.monotonic()
    service.process.send_signal(signal.SIGINT)  # does nothing to one that has ended
    service.process.wait(30)
    seconds = time.monotonic() - started
    if service.process.stdout:
        service.process.stdout.close()
    return seconds


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def service(exported: Exported) -> Iterator[Service]:
    """The service over the exported models, for the whole run."""
    service = start_service(exported.models)
    yield service
    stop_service(service)
