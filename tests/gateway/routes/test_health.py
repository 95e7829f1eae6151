"""/healthz and /readyz."""

from typing import Any

from flask.testing import FlaskClient

from serving.contract.errors import ModelServerUnavailable


def test_the_process_lives_whatever_the_model_server_does(client: FlaskClient, predictor: Any) -> None:
    predictor.fails = ModelServerUnavailable("away")
    assert client.get("/healthz").get_json() == {"status": "ok"}


def test_ready_tells_the_models_and_not_ready_the_reason(client: FlaskClient, predictor: Any) -> None:
    assert client.get("/readyz").get_json() == {"status": "ready", "models": ["colors"]}
    predictor.fails = ModelServerUnavailable("the model server is away")
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.get_json()["detail"] == "the model server is away"
