"""The face service and a gateway, as `sightline serve` starts them, with no model server behind."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.e2e.conftest import free_port

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0
COMMANDS = {
    "faces": ("-m", "serving.faces"),
    "gateway": ("-m", "gunicorn", "--config", "serving/gateway/gunicorn/gunicorn.conf.py"),
}


@dataclass
class FacesOverHttp:
    """url: of the gateway. processes: by the names of COMMANDS. log: what all of them wrote to stderr."""

    url: str
    environ: Mapping[str, str]
    log: Path
    processes: dict[str, "subprocess.Popen[bytes]"]

    def start(self, name: str) -> None:
        """Start one of the processes, or start it again."""
        with self.log.open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *COMMANDS[name]], cwd=ROOT, env=self.environ, stderr=log
            )

    def client(self) -> httpx.Client:
        """Keeps no connection: each request is whichever worker's is free."""
        return httpx.Client(base_url=self.url, timeout=90, trust_env=False, headers={"Connection": "close"})

    def wait(self) -> None:
        """Until the gateway and the face service answer something."""
        deadline = time.monotonic() + START_SECONDS
        with self.client() as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    answer = client.get("/faces/people")
                    if answer.is_success or answer.json()["code"] != "faces_unavailable":
                        return
                time.sleep(0.1)
        raise AssertionError(self.log.read_text())


@contextlib.contextmanager
def faces_over_http(folder: Path, store_url: str, workers: int = 2) -> Iterator[FacesOverHttp]:
    """Both, in processes of their own. folder: for the socket and the log."""
    port = free_port()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SIGHTLINE_", "PROMETHEUS_"))}
    environ |= {
        "SIGHTLINE_PORT": str(port),
        "SIGHTLINE_WORKERS": str(workers),
        "SIGHTLINE_BACKEND": "127.0.0.1:1",
        "SIGHTLINE_FACES_SOCKET": str(folder / "s"),
        "SIGHTLINE_FACES_URL": store_url,
        "SIGHTLINE_FACES_ENCODER": "dlib",
        "SIGHTLINE_FACES_WAITING": "64",
    }
    running = FacesOverHttp(f"http://127.0.0.1:{port}", environ, folder / "log", {})
    for name in COMMANDS:
        running.start(name)
    try:
        running.wait()
        yield running
    finally:
        for process in running.processes.values():
            process.terminate()
        for process in running.processes.values():
            process.wait(30)
