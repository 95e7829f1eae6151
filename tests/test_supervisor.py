"""Processes that are there and do not answer: the real model server and the real arbiter, stopped."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serving import supervisor
from serving.__main__ import _gateway, _model_server
from serving.backend.targets import UNIX
from serving.gateway.settings import Settings
from serving.supervisor import Child, FileCheck, Supervisor
from tests.model_server.server_process import free_port
from tests.waiting import until

pytestmark = pytest.mark.integration

SILENT_SECONDS = 2.0


@pytest.fixture
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Child]]:
    """A model server without models, and a gateway in front of it, watched."""
    monkeypatch.setattr(supervisor, "SILENT_SECONDS", SILENT_SECONDS)
    monkeypatch.setattr(supervisor, "CHECK_SECONDS", 0.2)
    (tmp_path / "models").mkdir()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SIGHTLINE_", "PROMETHEUS_"))}
    environ["TMPDIR"] = str(tmp_path)
    settings = Settings(
        port=free_port(), workers=1, backend=f"{UNIX}{tmp_path / 'grpc'}", backend_socket=str(tmp_path / "predict")
    )
    children = [
        _model_server(tmp_path / "models", settings, environ, 0, 0),
        _gateway(settings, environ, tmp_path / "arbiter"),
    ]
    running = Supervisor(children, lambda: True)
    thread = threading.Thread(target=running.run)
    thread.start()
    until(lambda: all(child.answered_at is not None for child in children), 60)
    yield children
    running.stop()
    thread.join()


def test_what_stops_answering_is_killed_and_started_again(children: list[Child]) -> None:
    server, gateway = children
    url = f"http://127.0.0.1:{gateway.environ['SIGHTLINE_PORT']}"
    until(lambda: "no model" in httpx.get(f"{url}/readyz", trust_env=False).json()["detail"], 60)
    for child in children:
        assert child.process is not None
        before = child.process.pid
        os.kill(before, signal.SIGSTOP)
        started = time.monotonic()
        if child is server:
            time.sleep(0.3)
            asked = time.monotonic()
            told = httpx.get(f"{url}/readyz", trust_env=False)
            assert time.monotonic() - asked < 1.0
            assert told.status_code == 503
        until(lambda: child.process is not None and child.process.pid != before, 30)  # noqa: B023
        assert time.monotonic() - started > SILENT_SECONDS - 1
        until(lambda: child.answered_at is not None, 60)  # noqa: B023
    until(lambda: _answers(url), 60)


def _answers(url: str) -> bool:
    try:
        return "no model" in httpx.get(f"{url}/readyz", trust_env=False).json()["detail"]
    except httpx.TransportError:
        return False


def test_a_process_that_answers_stays(children: list[Child]) -> None:
    before = [child.process for child in children]
    time.sleep(2 * SILENT_SECONDS)
    assert [child.process for child in children] == before


def test_a_file_that_is_touched_again_is_an_answer(tmp_path: Path) -> None:
    check = FileCheck(tmp_path / "beat")
    assert not check.answered()
    (tmp_path / "beat").touch()
    assert check.answered()
    assert not check.answered()
    os.utime(tmp_path / "beat", ns=(1, 1))
    assert check.answered()
