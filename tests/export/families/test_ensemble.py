"""Several models as one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from export.data.uint8_input import uint8_preprocessing
from export.families.ensemble import fit_to_member, hard, soft
from serving.contract.errors import UsageError
from tests.export.families.small_model import read_golden_of, small_model

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

Export = Callable[..., Path]


@pytest.mark.parametrize("vote", ["soft", "hard"])
def test_an_ensemble_is_the_vote_of_its_members(exported: Export, tmp_path: Path, vote: str) -> None:
    import keras

    for name, size in (("a", 24), ("b", 16)):
        keras.utils.set_random_seed(size)
        keras.Sequential(
            [keras.Input((size, size, 3)), keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
        ).save(tmp_path / f"{name}.keras")
        exported("keras", tmp_path / f"{name}.keras", "--preprocess", "unit", "--name", name)
    golden = read_golden_of(exported("ensemble", "a", "b", "--vote", vote, "--name", "both"))
    small = np.asarray(fit_to_member(golden.tensors, uint8_preprocessing("rgb", (16, 16), "crop")))
    answers = np.stack(
        [
            np.asarray(keras.models.load_model(tmp_path / f"{name}.keras")(tensors / np.float32(255)))
            for name, tensors in (("a", golden.tensors), ("b", small))
        ]
    )
    assert np.allclose(golden.probabilities, np.asarray({"soft": soft, "hard": hard}[vote](answers)), atol=1e-5)


def test_hard_votes_are_shares_and_the_mean_decides_between_equals() -> None:
    answers = np.array([[[0.6, 0.4, 0.0]], [[0.1, 0.9, 0.0]]], np.float32)
    shares = np.asarray(hard(answers))[0]
    assert shares.argmax() == 1
    assert shares.sum() == pytest.approx(1)
    assert np.asarray(hard(np.concatenate([answers, answers[:1]])))[0].argmax() == 0


def test_resizing_in_the_graph_is_pillows_within_one_step() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1, 48, 48, 3)).astype(np.uint8)
    for wanted in (
        uint8_preprocessing("rgb", (20, 20), "crop"),
        uint8_preprocessing("gray", (20, 20), "crop"),
        uint8_preprocessing("gray", (48, 48), "crop"),
    ):
        ours = np.asarray(fit_to_member(picture, wanted))[0].astype(int)
        assert np.abs(ours - wanted.apply(picture[0])).max() <= 1


def test_members_that_cannot_share_a_tensor_are_refused(run: Callable[..., Result], tmp_path: Path) -> None:
    small_model("softmax").save(tmp_path / "own.keras")
    run("keras", tmp_path / "own.keras", "--preprocess", "raw", "--name", "a")
    run("keras", tmp_path / "own.keras", "--preprocess", "raw", "--name", "b", "--fit", "stretch")
    with pytest.raises(UsageError, match="one tensor cannot serve both"):
        run("ensemble", "a", "b")
    with pytest.raises(UsageError, match="two members"):
        run("ensemble", "a")
    with pytest.raises(UsageError, match="is not an exported model"):
        run("ensemble", "a", "nobody")
