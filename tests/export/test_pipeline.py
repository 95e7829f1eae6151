"""The export of a tiny model, from data to a published version."""

import errno
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export.options import Target
from export.pipeline import Recipe, export, how_to_try
from serving.contract.card import read_card
from serving.contract.errors import NoSpace
from serving.contract.golden import read_golden
from serving.contract.served_at import write_address

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.integration


def test_card_says_what_the_model_is(bars_version: Path) -> None:
    card = read_card(bars_version)
    assert (card.name, card.family, card.label_names) == ("bars", "bars", ("upright", "lying"))
    assert card.input.shape == (None, 28, 28, 1)
    assert card.metrics["test_accuracy"] >= 0.8
    assert 1 <= card.training.epochs <= 12


def test_golden_examples_are_of_every_class(bars_version: Path) -> None:
    golden = read_golden(bars_version)
    assert golden.probabilities.argmax(axis=1).tolist() == [0, 1] * 4


def test_same_seed_gives_the_same_weights(
    tmp_path: Path, bars_version: Path, make_recipe: Callable[..., Recipe]
) -> None:
    again = export(make_recipe(), Target(tmp_path, "bars"))
    other = export(make_recipe(seed=1), Target(tmp_path, "bars"))
    expected = read_golden(bars_version).probabilities
    assert np.array_equal(read_golden(again).probabilities, expected)
    assert not np.array_equal(read_golden(other).probabilities, expected)


def test_an_export_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("export.pipeline.write_version", full_disk)
    with pytest.raises(NoSpace):
        export(make_recipe(epochs=1), Target(tmp_path, "bars"))
    assert list(tmp_path.iterdir()) == []


def test_an_export_ends_with_the_request_to_try(bars_version: Path, tmp_path: Path) -> None:
    name, version = bars_version.parent.name, bars_version
    picture = version / "assets.extra" / "golden" / "000.png"
    unknown = f"to serve it: sightline serve --models {tmp_path}; then try: curl -F image=@{picture} "
    assert how_to_try(tmp_path, version) == f"{unknown}http://127.0.0.1:8000/predict/{name}"
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        write_address(tmp_path, url)
        assert how_to_try(tmp_path, version) == f"served at {url}; try: curl -F image=@{picture} {url}/predict/{name}"
