"""/healthz and /readyz."""

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from serving.contract.errors import ModelServerUnavailable
from serving.contract.exports import ExportState, write_state
from serving.gateway.app import create_app
from serving.gateway.settings import Settings


def test_the_process_lives_whatever_the_model_server_does(client: FlaskClient, predictor: Any) -> None:
    predictor.fails = ModelServerUnavailable("away")
    assert client.get("/healthz").get_json() == {"status": "ok"}


def test_ready_tells_the_models_and_not_ready_the_reason(client: FlaskClient, predictor: Any) -> None:
    assert client.get("/readyz").get_json() == {"status": "ready", "models": ["colors"]}
    predictor.fails = ModelServerUnavailable("the model server is away")
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.get_json()["detail"] == "the model server is away"


def test_readiness_tells_which_exports_are_not_done(predictor: Any, tmp_path: Path) -> None:
    client = create_app(Settings(exports_dir=str(tmp_path)), predictor).test_client()
    assert client.get("/readyz").get_json() == {"status": "ready", "models": ["colors"]}
    write_state(tmp_path / "0-colors.json", ExportState("colors", "running", "drawing its report"))
    write_state(tmp_path / "1-digits.json", ExportState("digits", "running", "epoch 3 of at most 10", 0.25))
    write_state(tmp_path / "2-fashion.json", ExportState("fashion", "waiting"))
    assert client.get("/readyz").get_json()["exports"] == [
        {"model": "digits", "state": "running", "detail": "epoch 3 of at most 10", "progress": 0.25},
        {"model": "fashion", "state": "waiting", "detail": "", "progress": None},
    ]


def test_a_service_without_a_model_tells_what_is_being_exported(
    predictor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "models", dict)
    client = create_app(Settings(exports_dir=str(tmp_path)), predictor).test_client()
    write_state(tmp_path / "0-imagenet.json", ExportState("imagenet", "running", "loading TensorFlow"))
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.get_json()["detail"] == "The first models are being exported: imagenet (loading TensorFlow)."
    write_state(tmp_path / "0-imagenet.json", ExportState("imagenet", "failed", "no space"))
    assert client.get("/readyz").get_json()["detail"] == "The model server has no model."
