import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from serving.contract.card import card_to_json
from serving.gateway.access.keys import new_key
from serving.gateway.app import create_app
from serving.gateway.settings import Settings
from tests.cards import COLORS
from tests.gateway.conftest import ColorPredictor

ENTRY = {
    "name": "colors",
    "ready": True,
    "classifies": True,
    "versions": [
        {"version": 1, "state": "AVAILABLE", "proven": True},
        {"version": 0, "state": "END", "proven": None, "error": "it broke"},
    ],
}
EMPTY = {"name": "empty", "ready": False, "classifies": None, "versions": []}


def test_models_are_listed_with_their_versions(client: FlaskClient) -> None:
    assert client.get("/models").get_json() == {"models": [ENTRY, EMPTY]}


@pytest.mark.parametrize(
    ("unproven", "entry"),
    [
        ("It has no manifest.", {"proven": False, "unproven": "It has no manifest."}),
        (None, {"proven": None}),  # TensorFlow Serving does not say
    ],
)
def test_an_unproven_version_says_why(
    client: FlaskClient, predictor: ColorPredictor, unproven: str | None, entry: dict[str, Any]
) -> None:
    predictor.unproven = unproven
    version = client.get("/models/colors").get_json()["versions"][0]
    assert version == {"version": 1, "state": "AVAILABLE", **entry}


def test_a_model_that_does_not_classify_is_not_offered(client: FlaskClient, predictor: ColorPredictor) -> None:
    assert client.get("/v2/models").get_json() == {"models": ["colors"]}
    predictor.classifies = False
    assert client.get("/models").get_json()["models"][0]["classifies"] is False
    assert client.get("/v2/models").get_json() == {"models": []}


def test_a_model_is_described_by_its_card(client: FlaskClient) -> None:
    body = client.get("/models/colors").get_json()
    assert body["version"] == 1
    assert body["card"] == json.loads(card_to_json(COLORS))


def test_an_unknown_model_is_not_found(client: FlaskClient) -> None:
    assert client.get("/models/dogs").get_json()["code"] == "unknown_model"


def test_the_address_of_the_model_server_wants_the_scope_admin(settings: Settings, predictor: Any) -> None:
    keys = {name: new_key(name, [name]) for name in ("predict", "metrics", "admin")}
    update = {"backend": "unix:/run/grpc", "api_keys": ",".join(entry for _, entry in keys.values())}
    client = create_app(settings.model_copy(update=update), predictor).test_client()
    for name, status in (("predict", 403), ("metrics", 403), ("admin", 200)):
        response = client.get("/backend", headers={"Authorization": f"Bearer {keys[name][0]}"})
        assert response.status_code == status
    assert response.get_json() == {"addresses": ["unix:/run/grpc"]}
