"""gunicorn, running the gateway in processes of its own."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
CONFIG = "serving/gateway/gunicorn/gunicorn.conf.py"


def children_of(pid: int) -> list[int]:
    """Process ids; none where the process has ended."""
    listing = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(each) for each in listing.stdout.split()]


@dataclass
class Gateway:
    """port: where it listens; log: what it writes to stderr; temporary: its folder of temporary files."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    temporary: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def workers(self) -> list[int]:
        return children_of(self.process.pid)


def wait_until_refused(gateway: Gateway) -> None:
    """Until the gateway accepts no more connections: its workers have been told to stop."""
    deadline = time.monotonic() + 60
    with contextlib.suppress(ConnectionRefusedError):
        while True:
            assert time.monotonic() < deadline
            socket.create_connection(("127.0.0.1", gateway.port)).close()
            time.sleep(0.02)


@contextlib.contextmanager
def running(folder: Path, before: str = "", **settings: str) -> Iterator[Gateway]:
    """A gateway with these settings. Without a backend it has no model server behind it.

    before: Python that gunicorn runs before its configuration, to change what is no setting.
    """
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SIGHTLINE_", "PROMETHEUS_"))}
    environ |= {"SIGHTLINE_PORT": str(port), "SIGHTLINE_BACKEND": "127.0.0.1:1", "TMPDIR": str(folder)}
    environ |= {f"SIGHTLINE_{name.upper()}": value for name, value in settings.items()}
    log = folder / "log"
    config = folder / "gunicorn.conf.py"
    config.write_text(f"{before}\n{(ROOT / CONFIG).read_text()}")
    command = [sys.executable, "-m", "gunicorn", "--config", str(config)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=file)
    gateway = Gateway(process, port, log, folder)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{gateway.url}/healthz", trust_env=False)
                break
            time.sleep(0.05)
        yield gateway
    finally:
        process.terminate()
        process.wait(20)
