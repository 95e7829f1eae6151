"""The output's meaning is read from the model or said; images do not decide it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.adoption.keras_files import activation_of
from export.adoption.loaded_model import LoadedModel
from export.adoption.output import finisher, output_of, require_probabilities, require_rows
from export.adoption.saved_models import load_saved_model
from serving.contract.errors import InvalidData, UsageError
from tests.export.adoption.own_models import nested, small

keras = pytest.importorskip("keras")

L = keras.layers


def loaded(activation: Any, loss: str = "") -> LoadedModel:
    return LoadedModel(
        call=lambda x: x, shape=(12, 12, 3), dtype="float32", activation=activation, parameters=0, loss=loss
    )


@pytest.mark.parametrize(
    ("activation", "loss", "classes", "output"),
    [
        ("softmax", "", 3, "probabilities"),
        ("sigmoid", "", 1, "sigmoid"),
        ("linear", "", 3, "logits"),
        ("linear", "sparsecategoricalcrossentropy", 3, "logits"),
        ("linear", "binarycrossentropy", 1, "logits"),
    ],
)
def test_the_last_activation_and_the_loss_say_what_the_output_is(
    activation: Any, loss: str, classes: int, output: str
) -> None:
    assert output_of(loaded(activation, loss), None, classes)[0] == output


@pytest.mark.parametrize(("activation", "classes"), [("linear", 1), (None, 1), (None, 3)])
def test_an_output_that_cannot_be_known_is_asked_for(activation: Any, classes: int) -> None:
    with pytest.raises(UsageError) as error:
        output_of(loaded(activation), None, classes)
    assert all(f"{name} (" in error.value.hint for name in ("probabilities", "logits", "sigmoid"))
    assert output_of(loaded(activation), "logits", classes)[0] == "logits"


@pytest.mark.parametrize(
    ("activation", "loss", "said"),
    [("sigmoid", "", None), ("linear", "binarycrossentropy", None), (None, "", "sigmoid"), (None, "", "independent")],
)
def test_several_labels_at_once_are_refused_and_get_no_softmax(activation: Any, loss: str, said: Any) -> None:
    with pytest.raises(UsageError, match="Several labels"):
        output_of(loaded(activation, loss), said, 3)


def test_one_number_is_not_the_probabilities_of_several_classes() -> None:
    for activation, said in (("softmax", None), (None, "probabilities")):
        with pytest.raises(UsageError, match="One number per image"):
            output_of(loaded(activation), said, 1)


def test_one_number_becomes_two_classes() -> None:
    one = np.float32([[0.0], [2.0]])
    second = 1 / (1 + np.exp(-one))
    assert np.allclose(finisher("logits", 1)(one), np.hstack([1 - second, second]))
    assert np.allclose(finisher("sigmoid", 1)(one / 2), [[1, 0], [0, 1]])


@pytest.mark.parametrize(
    ("model", "activation"),
    [
        (lambda: small("softmax"), "softmax"),
        (lambda: small("sigmoid", 1), "sigmoid"),
        (lambda: small(None), "linear"),
        (lambda: small("tanh"), None),
        (nested, "softmax"),
        (lambda: keras.Sequential([small(None), L.Softmax()]), "softmax"),
        (lambda: keras.Sequential([small(None), L.Activation("sigmoid"), L.Reshape((3,))]), "sigmoid"),
    ],
)
def test_the_last_activation_is_read_from_keras_and_from_a_saved_model(
    tmp_path: Path, model: Any, activation: str | None
) -> None:
    built = model()
    built(np.zeros((1, *built.layers[0].input.shape[1:]), np.float32))
    assert activation_of(built) == activation
    built.export(tmp_path / "own", verbose=False)
    assert load_saved_model(tmp_path / "own", "serving_default", None).activation == activation


def test_answers_that_contradict_the_meaning_are_refused() -> None:
    with pytest.raises(InvalidData, match="sum to 3"):
        require_probabilities(np.float32([[1, 1, 1]]), "--output probabilities")
    with pytest.raises(InvalidData, match="not finite"):
        require_rows(np.float32([[np.nan, 1]]))
    with pytest.raises(InvalidData, match=r"\(2, 4, 4\)"):
        require_rows(np.zeros((2, 4, 4), np.float32))
