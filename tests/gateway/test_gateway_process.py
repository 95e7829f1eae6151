"""gunicorn with two workers and no model server behind them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.gateway.test_gateway_metrics import samples

ROOT = Path(__file__).parents[2]


@dataclass
class Gateway:
    process: subprocess.Popen[bytes]
    url: str
    log: Path
    temporary: Path


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SIGHTLINE_", "PROMETHEUS_"))}
    environ |= {"SIGHTLINE_PORT": str(port), "SIGHTLINE_BACKEND": "127.0.0.1:1", "TMPDIR": str(tmp_path)}
    log = tmp_path / "log"
    command = [sys.executable, "-m", "gunicorn", "--config", "serving/gateway/gunicorn.conf.py"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=file)
    gateway = Gateway(process, f"http://127.0.0.1:{port}", log, tmp_path)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"{gateway.url}/healthz", trust_env=False)
            break
        time.sleep(0.1)
    yield gateway
    process.terminate()
    process.wait(20)


def test_the_metrics_of_several_workers_are_their_sum_and_outlive_a_worker(gateway: Gateway) -> None:
    def count() -> float:
        text = httpx.get(f"{gateway.url}/metrics", trust_env=False).text
        return samples(text).get(("sightline_request_total", "/models", "503", "", ""), 0)

    for _ in range(20):  # a connection each: whichever worker is free answers
        response = httpx.get(f"{gateway.url}/models", trust_env=False)
        assert response.status_code == 503
    assert [count() for _ in range(5)] == [20] * 5
    listing = subprocess.run(["pgrep", "-P", str(gateway.process.pid)], capture_output=True, text=True, check=True)
    for pid in listing.stdout.split():
        os.kill(int(pid), signal.SIGKILL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            assert count() == 20
            break
        time.sleep(0.1)
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines() if line.startswith("{")]
    assert [line["code"] for line in lines if line["message"] == "request"] == ["model_server_unavailable"] * 20
    gateway.process.terminate()
    assert gateway.process.wait(20) == 0
    assert not list(gateway.temporary.glob("sightline-metrics-*"))
