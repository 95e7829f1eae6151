import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving.contract.card import CARD_FILE, card_from_json, card_to_dict, card_to_json, read_card
from serving.contract.errors import InvalidCard
from tests.cards import COLORS


def test_a_card_survives_being_written_and_read() -> None:
    assert card_from_json(card_to_json(COLORS)) == COLORS


def test_a_card_on_disk_is_read(tmp_path: Path) -> None:
    path = tmp_path / CARD_FILE
    path.parent.mkdir(parents=True)
    path.write_text(card_to_json(COLORS))
    assert read_card(tmp_path) == COLORS


def test_a_missing_card_says_where_it_should_be(tmp_path: Path) -> None:
    with pytest.raises(InvalidCard, match=r"model_card\.json"):
        read_card(tmp_path)


def changed(path: str, value: Any) -> str:
    data = card_to_dict(COLORS)
    *parents, last = path.split(".")
    target = data
    for parent in parents:
        target = target[parent]
    target[last] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("name", 3, r"card\.name is 3; it must be a str"),
        ("preprocessing.fit", "squash", r"card\.preprocessing\.fit is 'squash'"),
        ("preprocessing.height", True, r"card\.preprocessing\.height is True"),
        ("preprocessing.mean", [0, "x", 0], r"card\.preprocessing\.mean\[1\] is 'x'"),
        ("labels", [], "no labels"),
        ("labels", [{"id": "r"}], r"card\.labels\[0\]: missing fields \['name'\]"),
        ("surprise", 1, r"unknown fields \['surprise'\]"),
        ("schema_version", 2, "schema_version 2"),
        ("input.dtype", "float32", "they must agree"),
        ("golden.atol", 1e9, r"golden\.atol is 1e\+09; it must be from 0 to 0\.1"),
        ("golden.atol", -1, r"golden\.atol is -1"),
        ("metrics", {"test_accuracy": None}, r"card\.metrics\.test_accuracy"),
    ],
)
def test_a_card_that_is_wrong_is_refused_with_the_fields_name(path: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidCard, match=message):
        card_from_json(changed(path, value))


def test_a_card_that_is_nested_too_deep_is_no_card() -> None:
    with pytest.raises(InvalidCard, match="not JSON"):
        card_from_json("[" * 100_000)


@pytest.mark.parametrize("field", sorted(card_to_dict(COLORS)))
def test_a_card_without_a_field_is_refused(field: str) -> None:
    data = card_to_dict(COLORS)
    del data[field]
    with pytest.raises(InvalidCard, match=field):
        card_from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '"card"'])
def test_what_is_no_card_is_refused(text: str) -> None:
    with pytest.raises(InvalidCard):
        card_from_json(text)


def test_labels_are_named_in_the_order_of_the_output() -> None:
    assert replace(COLORS).label_names == ("red", "green", "blue")
