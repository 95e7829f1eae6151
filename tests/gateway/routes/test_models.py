import json

from flask.testing import FlaskClient

from serving.contract.card import card_to_json
from tests.cards import COLORS

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
