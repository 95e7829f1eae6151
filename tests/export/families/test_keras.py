"""Adopted models answer as before."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from export.families.keras import name_of
from serving.contract.card import read_card
from serving.contract.errors import InvalidData, UsageError
from tests.export.families.small_model import read_golden_of, small_model

pytest.importorskip("tensorflow")

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning"),
]

Export = Callable[..., Path]


@pytest.mark.parametrize("suffix", ["keras", "h5", "saved_model"])
def test_an_own_model_is_adopted_and_answers_as_before(exported: Export, tmp_path: Path, suffix: str) -> None:
    model = small_model("softmax")
    path = tmp_path / f"own.{suffix}"
    model.export(path, verbose=False) if suffix == "saved_model" else model.save(path)
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    version = exported("keras", path, "--preprocess", "unit", "--labels", tmp_path / "names.txt", "--name", "own")
    assert read_card(version).label_names == ("a", "b", "c")
    golden = read_golden_of(version)
    assert np.allclose(golden.probabilities, np.asarray(model(golden.tensors / np.float32(255))), atol=1e-5)


def test_logits_get_a_softmax_and_a_single_share_a_second_class(exported: Export, tmp_path: Path) -> None:
    for name, model in (("logits", small_model(None)), ("share", small_model("sigmoid", 1, 1))):
        model.save(tmp_path / f"{name}.keras")
        probabilities = read_golden_of(
            exported("keras", tmp_path / f"{name}.keras", "--preprocess", "raw", "--name", name)
        ).probabilities
        assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert probabilities.shape[1] == 2


def test_a_saved_model_is_served_as_it_is_with_its_card_as_a_signature(exported: Export, tmp_path: Path) -> None:
    small_model("softmax").export(tmp_path / "own", verbose=False)
    version = exported("keras", tmp_path / "own", "--as-is", "--preprocess", "tf", "--name", "own")
    card = read_card(version)
    assert (card.input.dtype, card.preprocessing.scale) == ("float32", 1 / 127.5)
    same = "variables/variables.data-00000-of-00001"
    assert (version / same).read_bytes() == (tmp_path / "own" / same).read_bytes()


def test_models_that_cannot_be_adopted_say_why(run: Callable[..., Result], tmp_path: Path) -> None:
    small_model("softmax").save(tmp_path / "own.keras")
    (tmp_path / "names.txt").write_text("a\nb\n")
    (tmp_path / "broken.keras").write_bytes(b"PK no zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidData, match="names 2 classes \\(a, b\\); the model's output has 3"):
        run("keras", tmp_path / "own.keras", "--preprocess", "raw", "--labels", tmp_path / "names.txt")
    for name in ("broken.keras", "empty"):
        with pytest.raises(InvalidData, match=name):
            run("keras", tmp_path / name)
    with pytest.raises(UsageError, match="cannot be a model's name"):
        run("keras", tmp_path / "own.keras", "--name", "../own")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("my cats (2).keras", "my-cats-2"),
        ("flowers/3/", "flowers"),
        ("saved/", "saved"),
        ("-.keras", "keras"),
        ("flowers/9223372036854775808/", "9223372036854775808"),  # too large for a version
    ],
)
def test_a_model_is_named_after_its_file(tmp_path: Path, path: str, name: str) -> None:
    place = tmp_path / path
    (place if path.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
    if not path.endswith("/"):
        place.touch()
    assert name_of(place) == name


def test_the_command_names_the_model_after_the_file_unless_it_is_told(exported: Export, tmp_path: Path) -> None:
    small_model("softmax").save(tmp_path / "cats.keras")
    assert exported("keras", tmp_path / "cats.keras", "--preprocess", "raw").parent.name == "cats"
    given = ("--preprocess", "raw", "--name", "keras")
    assert exported("keras", tmp_path / "cats.keras", *given).parent.name == "keras"


def test_the_report_says_what_was_told_and_found(exported: Export, tmp_path: Path) -> None:
    small_model("softmax").save(tmp_path / "cats.keras")
    exported("keras", tmp_path / "cats.keras", "--preprocess", "unit", "--like", "keras")
    page = (tmp_path / "reports" / "cats" / "1" / "index.html").read_text()
    assert "fit stretch, bilinear, not antialiased (--like keras)" in page
    assert "pixel x 0.00392157 (--preprocess unit)" in page
    assert "probabilities (the model ends in a softmax)" in page


def test_verified_claims_no_more_than_was_verified(run: Callable[..., Result], tmp_path: Path) -> None:
    small_model("softmax").save(tmp_path / "cats.keras")
    told = run("keras", tmp_path / "cats.keras", "--preprocess", "unit").output
    assert "verified: the served model answers as the file you gave on 8 images" in told
    assert "can only be measured" in told
