"""`sightline serve` while it waits for its gateway: whatever that answers, it is announced and goes on."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from serving.__main__ import GUNICORN_CONF, _Announcing, serve
from serving.contract.errors import UsageError
from serving.faces.settings import FaceSettings
from serving.gateway.settings import Settings


class Gateway(http.server.BaseHTTPRequestHandler):
    """Ready, and answers /models as `models` says: a status and a body; None hangs up."""

    models: tuple[int, object] | None = None

    def do_GET(self) -> None:
        answer = (200, {"models": ["digits"]}) if self.path == "/readyz" else self.models
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


@pytest.mark.parametrize(
    "models", [(503, {"code": "overloaded"}), (401, {"code": "unauthorized"}), None], ids=["full", "keys", "hangs up"]
)
def test_a_gateway_that_does_not_tell_its_models_is_announced(
    url: str, models: tuple[int, object] | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gateway, "models", models)
    assert _Announcing(url, Path("nowhere"), Settings())()
    assert f"Sightline is ready at {url} with digits" in capsys.readouterr().out


def test_models_that_are_loading_are_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    announcing = _Announcing(url, Path("nowhere"), Settings())
    for state, announced in (("LOADING", False), ("AVAILABLE", True)):
        told = {"models": [{"name": "digits", "versions": [{"version": 1, "state": state}]}]}
        monkeypatch.setattr(Gateway, "models", (200, told))
        assert announcing() is announced


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
