"""/healthz and /readyz."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from serving.backend.predictor import ModelRef, Readiness
from serving.contract.errors import DeadlineExceeded, ModelServerUnavailable
from serving.contract.exports import ExportState, write_state
from serving.gateway.app import create_app
from serving.gateway.settings import Settings


def test_the_process_lives_whatever_the_model_server_does(client: FlaskClient, predictor: Any) -> None:
    predictor.fails = ModelServerUnavailable("away")
    assert client.get("/healthz").get_json() == {"status": "ok"}


def test_ready_tells_the_models_and_not_ready_the_reason(client: FlaskClient, predictor: Any) -> None:
    assert client.get("/readyz").get_json() == {
        "status": "ready",
        "models": ["colors"],
        "failed": [{"model": "colors", "version": 0, "error": "it broke"}],
    }
    predictor.fails = ModelServerUnavailable("the model server is away")
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.get_json()["detail"] == "the model server is away"


def test_readiness_tells_which_exports_are_not_done(predictor: Any, tmp_path: Path) -> None:
    client = create_app(Settings(exports_dir=str(tmp_path)), predictor).test_client()
    assert client.get("/readyz").get_json()["models"] == ["colors"]
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
    monkeypatch.setattr(predictor, "readiness", lambda _: Readiness())
    client = create_app(Settings(exports_dir=str(tmp_path)), predictor).test_client()
    write_state(tmp_path / "0-imagenet.json", ExportState("imagenet", "running", "loading TensorFlow"))
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.get_json()["detail"] == "The first models are being exported: imagenet (loading TensorFlow)."
    write_state(tmp_path / "0-imagenet.json", ExportState("imagenet", "failed", "no space"))
    assert client.get("/readyz").get_json()["detail"] == "The model server has no model."


LOADING = Readiness(("colors",), (ModelRef("photos", 3),), ((ModelRef("digits", 7), "it broke."),))


def test_a_model_that_is_loading_keeps_the_service_from_being_ready(
    settings: Settings, predictor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "readiness", lambda _: LOADING)
    client = create_app(settings, predictor).test_client()
    response = client.get("/readyz")
    assert (response.status_code, response.get_json()["code"]) == (503, "model_not_ready")
    assert response.get_json()["detail"] == "Still loading: photos version 3. Failed: digits version 7: it broke."
    assert client.get("/v2/health/ready").status_code == 503
    any_model = settings.model_copy(update={"ready_when": "any"})
    client = create_app(any_model, predictor).test_client()
    assert client.get("/readyz").get_json()["models"] == ["colors"]
    assert client.get("/v2/health/ready").status_code == 200


def test_a_failed_version_does_not_keep_it(settings: Settings, predictor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = create_app(settings, predictor).test_client()
    monkeypatch.setattr(predictor, "readiness", lambda _: replace(LOADING, loading=()))
    assert client.get("/readyz").status_code == 200
    monkeypatch.setattr(predictor, "readiness", lambda _: replace(LOADING, loading=(), available=()))
    assert client.get("/readyz").get_json()["detail"] == "Failed: digits version 7: it broke."


def test_a_model_server_that_is_silent_is_503_in_time(client: FlaskClient, predictor: Any) -> None:
    predictor.fails = DeadlineExceeded("too late")
    response = client.get("/readyz")
    assert response.status_code == 503
    assert "within 0.8 s" in response.get_json()["detail"]
