import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from serving.contract.card import card_to_json
from serving.contract.errors import ModelServerUnavailable, SightlineError
from serving.gateway.http.errors import STATUS, status_of
from tests.cards import COLORS
from tests.contract.test_errors import tree

ENTRY = {
    "name": "colors",
    "ready": True,
    "versions": [{"version": 1, "state": "AVAILABLE"}, {"version": 0, "state": "END", "error": "it broke"}],
}


def test_models_are_listed_with_their_versions(client: FlaskClient) -> None:
    assert client.get("/models").get_json() == {"models": [ENTRY, {"name": "empty", "ready": False, "versions": []}]}


def test_a_model_is_described_by_its_card(client: FlaskClient) -> None:
    body = client.get("/models/colors").get_json()
    assert body["version"] == 1
    assert body["card"] == json.loads(card_to_json(COLORS))


def test_an_unknown_model_is_not_found(client: FlaskClient) -> None:
    assert client.get("/models/dogs").get_json()["code"] == "unknown_model"


def test_the_process_lives_whatever_the_model_server_does(client: FlaskClient, predictor: Any) -> None:
    predictor.fails = ModelServerUnavailable("away")
    assert client.get("/healthz").get_json() == {"status": "ok"}


def test_ready_tells_the_models_and_not_ready_the_reason(client: FlaskClient, predictor: Any) -> None:
    assert client.get("/readyz").get_json() == {"status": "ready", "models": ["colors"]}
    predictor.fails = ModelServerUnavailable("the model server is away")
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.get_json()["detail"] == "the model server is away"


@pytest.mark.parametrize("kind", list(tree()), ids=lambda kind: kind.__name__)
def test_every_error_has_a_status(kind: Any) -> None:
    assert 400 <= status_of(kind("x")) <= 599


def test_no_error_repeats_the_status_of_its_parent() -> None:
    for kind, status in STATUS.items():
        if kind is not SightlineError:
            assert status != status_of(kind.__mro__[1]("x")), kind


def test_the_table_of_statuses_names_only_errors_that_exist() -> None:
    assert set(STATUS) <= set(tree())
