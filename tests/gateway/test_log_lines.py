"""Log lines of gunicorn and its workers, whatever a client sends."""

import contextlib
import json
import os
import socket
from pathlib import Path

import httpx
import pytest

from tests.gateway.gateway_process import running

pytestmark = pytest.mark.integration


def test_every_line_of_the_log_is_json(tmp_path: Path) -> None:
    with running(tmp_path, workers="1") as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
            connection.sendall(b"no request\r\n\r\n")
            assert connection.recv(100)
        httpx.get(f"{gateway.url}/a%0a2026-01-01%20ERROR%20forged", trust_env=False)
        (worker,) = gateway.workers()
        os.kill(worker, 9)
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"{gateway.url}/healthz", trust_env=False)
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines()]
    assert any(line["logger"] == "gunicorn.error" for line in lines)
    assert not any("Logging error" in str(line) for line in lines)


def test_no_line_of_the_text_log_can_be_forged(tmp_path: Path) -> None:
    with running(tmp_path, workers="1", log_format="text") as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
            connection.sendall(b"no request\r\n\r\n")
            assert connection.recv(100)
        httpx.get(f"{gateway.url}/a%0a2026-01-01%20ERROR%20forged", trust_env=False)
    text = gateway.log.read_text()
    assert r"/a\n2026-01-01 ERROR forged" in text
    assert not any(line.startswith("2026-01-01 ERROR forged") for line in text.splitlines())
    assert "Traceback" not in text
