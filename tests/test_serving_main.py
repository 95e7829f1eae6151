"""`sightline serve` while it waits for its gateway: whatever that answers, it is announced and goes on."""

import contextlib
import http.server
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from serving.__main__ import GUNICORN_CONF, _Announcing, serve
from serving.contract.errors import UsageError
from serving.faces.settings import FaceSettings
from serving.gateway.settings import Settings
from tests.gateway.gateway_process import children_of
from tests.waiting import until

ROOT = Path(__file__).parent.parent


class Gateway(http.server.BaseHTTPRequestHandler):
    """Answers /readyz as `ready` says: a status and a body; None hangs up."""

    ready: tuple[int, object] | None = None

    def do_GET(self) -> None:
        answer = self.ready
        if answer is None:
            return
        body = json.dumps(answer[1]).encode()
        self.send_response(answer[0])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_help_prints_the_defaults_of_the_settings() -> None:
    text = " ".join(CliRunner().invoke(serve, ["--help"]).output.split())
    for name in ("host", "port", "workers", "log_format"):
        field = Settings.model_fields[name]
        assert f"{field.description} [default: {field.default}]" in text
    assert f"[default: {FaceSettings().encoder}]" in text


def test_settings_of_faces_have_flags_and_old_names_warn(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SIGHTLINE_MODELS", "digits")
    shown = CliRunner().invoke(serve, ["--show-settings", "--encoder", "dlib", "--preload-faces"]).output
    assert 'encoder = "dlib"' in shown
    assert "preload = true" in shown
    assert 'model_names = "digits"' in shown
    assert "SIGHTLINE_MODELS is now called SIGHTLINE_MODEL_NAMES" in caplog.text


def test_gunicorn_configuration_exists() -> None:
    assert GUNICORN_CONF.is_file()


def test_the_service_is_announced_when_it_is_ready(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    announcing = _Announcing(url, Path("nowhere"))
    monkeypatch.setattr(Gateway, "ready", (503, {"detail": "Still loading: digits version 1."}))
    assert not announcing()
    assert not capsys.readouterr().out
    monkeypatch.setattr(Gateway, "ready", (200, {"models": ["digits"]}))
    assert announcing()
    assert f"Sightline is ready at {url} with digits" in capsys.readouterr().out


@pytest.mark.parametrize("flag", [[], ["--export-if-empty"], ["--demo"]])
def test_a_folder_of_models_that_does_not_exist_is_refused_and_not_created(tmp_path: Path, flag: list[str]) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "reports").mkdir()
    with pytest.raises(UsageError, match=rf"modles does not exist; the nearest that does is {tmp_path}/models\."):
        serve_command(tmp_path / "modles", *flag)
    with pytest.raises(UsageError, match=rf"the nearest that does is {tmp_path}\."):
        serve_command(tmp_path / "quite" / "different", *flag)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "reports"]


def serve_command(models: Path, *flags: str) -> None:
    CliRunner().invoke(serve, ["--models", str(models), *flags], catch_exceptions=False)


def test_a_gateway_that_hangs_up_is_asked_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gateway, "ready", None)
    assert not _Announcing(url, Path("nowhere"))()


@pytest.mark.integration
def test_the_model_server_listens_on_private_sockets_alone(tmp_path: Path) -> None:
    """Only the gateway listens on TCP, on its own port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SIGHTLINE_")}
    (tmp_path / "models").mkdir()
    command = [sys.executable, "-m", "serving", "--models", str(tmp_path / "models"), "--port", str(port)]
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as short,  # a socket's path may have 107 bytes
        subprocess.Popen(command, cwd=ROOT, env={**environ, "TMPDIR": short}, stderr=subprocess.DEVNULL) as process,
    ):
        try:
            until(lambda: reason(f"http://127.0.0.1:{port}") == "The model server has no model.", seconds=60)
            folder = next(path.parent for path in Path(short).glob("*/grpc"))
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert {"grpc", "predict"} <= {path.name for path in folder.iterdir()}
            assert listening(descendants(process.pid)) == {port}
        finally:
            process.send_signal(signal.SIGINT)


def reason(url: str) -> str:
    try:
        return str(httpx.get(f"{url}/readyz", trust_env=False).json().get("detail"))
    except httpx.TransportError:
        return ""


def descendants(pid: int) -> set[int]:
    found = {pid}
    for child in children_of(pid):
        found |= descendants(child)
    return found


def listening(pids: set[int]) -> set[int]:
    """Ports on which these processes listen: /proc/net/tcp by the inodes of their sockets."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A" and row[9] in inodes}
