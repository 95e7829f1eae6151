"""JSON for people and for programs."""

import io
import json

import pytest
from flask.testing import FlaskClient
from PIL import Image

CURL = {"User-Agent": "curl/8.5.0", "Accept": "*/*"}


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/models", CURL),
        ("/nowhere", CURL),  # a problem
        ("/openapi.json", CURL),
        ("/v2", CURL),
        ("/models?pretty=true", {}),
        ("/models?pretty", {}),
    ],
)
def test_people_get_indented_json_with_a_newline_at_its_end(
    client: FlaskClient, path: str, headers: dict[str, str]
) -> None:
    response = client.get(path, headers=headers)
    text = response.get_data(as_text=True)
    assert text.startswith("{\n  ")
    assert text.endswith("}\n")
    assert response.content_length == len(text.encode())
    plain = client.get(path.partition("?")[0]).get_json()
    assert {**json.loads(text), "request_id": 0} == {**plain, "request_id": 0}


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/models", {}),
        ("/models", {"User-Agent": "python-httpx/0.28", "Accept": "*/*"}),
        ("/models", {**CURL, "Accept": "application/json"}),
        ("/models?pretty=false", CURL),
    ],
)
def test_programs_get_compact_json(client: FlaskClient, path: str, headers: dict[str, str]) -> None:
    assert client.get(path, headers=headers).get_data(as_text=True).startswith('{"models":[{"name"')


def test_a_prediction_at_the_terminal_keeps_every_digit(client: FlaskClient) -> None:
    file = io.BytesIO()
    Image.new("RGB", (3, 2), (255, 7, 90)).save(file, "PNG")
    answers = [
        client.post("/predict/colors", data=file.getvalue(), content_type="image/png", headers=headers).get_json()
        for headers in (CURL, {})
    ]
    assert answers[0]["predictions"] == answers[1]["predictions"]


def test_what_is_no_json_is_left_alone(client: FlaskClient) -> None:
    assert client.get("/", headers=CURL).get_data() == client.get("/").get_data()
