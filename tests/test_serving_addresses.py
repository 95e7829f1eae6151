"""`sightline serve` on IPv6 addresses, without a model server."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(("host", "reached"), [("::1", ("[::1]",)), ("::", ("[::1]", "127.0.0.1"))])
def test_it_listens_on_ipv6_and_polls_itself_there(tmp_path: Path, host: str, reached: tuple[str, ...]) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        port = probe.getsockname()[1]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SIGHTLINE_", "PROMETHEUS_"))}
    environ |= {"SIGHTLINE_FACES_SOCKET": str(tmp_path / "no-faces"), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-u", "-m", "serving", "--backend", "127.0.0.1:1", "--insecure", "--workers", "1"]
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([*command, "--host", host, "--port", str(port)], env=environ, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 60
        while "Not ready yet" not in log.read_text():  # what it says of the answer of its own /readyz
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        for name in reached:
            assert httpx.get(f"http://{name}:{port}/healthz", trust_env=False).status_code == 200
    finally:
        process.terminate()
        process.wait(30)
