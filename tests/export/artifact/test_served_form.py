"""The published form of a model: folded, or in bfloat16."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.artifact import served_form
from export.artifact.verify import verify
from export.options import Target
from export.pipeline import Recipe, export
from export.trained_model import KerasCall, TrainedModel, servable_of_keras
from serving.contract.card import read_card
from serving.contract.errors import UsageError, VerificationFailed
from serving.contract.golden import read_golden

keras = pytest.importorskip("keras")

pytestmark = pytest.mark.integration

layers = keras.layers


class Scaled(layers.Layer):  # type: ignore[misc, name-defined]
    """A layer that does not say what it is built with."""

    def __init__(self, factor: float, **options: Any) -> None:
        super().__init__(**options)
        self.factor = factor

    def call(self, image: Any) -> Any:
        return image * self.factor

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError("it has no config")


def normalised(shape: tuple[int, int, int], classes: int, *, first: Any = None) -> Any:
    """A small network with batch normalisation."""
    image = keras.Input(shape)
    values = layers.Rescaling(1 / 255)(image)
    values = layers.Conv2D(8, 5, 2, use_bias=False)(first(values) if first else values)
    values = layers.DepthwiseConv2D(3, use_bias=False)(layers.ReLU()(layers.BatchNormalization()(values)))
    values = layers.Flatten()(layers.ReLU()(layers.BatchNormalization()(values)))
    return keras.Model(image, layers.Dense(classes, activation="softmax")(layers.Dense(12, activation="relu")(values)))


@pytest.fixture
def recipe_of(make_recipe: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """A recipe that trains the network of `build` on bars, changed by `change`."""

    def make(
        build: Callable[..., Any], change: Callable[[TrainedModel], TrainedModel] = lambda trained: trained
    ) -> Recipe:
        make = make_recipe(build=build, epochs=4).make
        return Recipe("bars", lambda: change(make()))

    return make


def graph_text(version: Path) -> str:
    return (version / "saved_model.pb").read_bytes().decode("latin-1")


def test_the_published_graph_has_no_normalisation_and_answers_as_keras(
    recipe_of: Callable[..., Recipe], tmp_path: Path
) -> None:
    seen: list[TrainedModel] = []
    version = export(recipe_of(normalised, lambda trained: seen.append(trained) or trained), Target(tmp_path, "bars"))
    assert "Rsqrt" not in graph_text(version)
    assert verify(version).max_abs_difference <= 5e-6
    golden, card = read_golden(version), read_card(version)
    assert np.array_equal(golden.probabilities, seen[0].servable.probabilities(golden.tensors))  # Keras's, not folded
    assert card.golden.atol == 1e-5
    assert card.training.parameters == seen[0].servable.core.count_params()


def test_what_cannot_be_folded_is_published_as_it_is(
    recipe_of: Callable[..., Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(shape: tuple[int, int, int], classes: int) -> Any:
        return normalised(shape, classes, first=Scaled(2.0))

    version = export(recipe_of(build), Target(tmp_path, "bars"))
    assert "Rsqrt" in graph_text(version)
    assert "not folded: Scaled" in capsys.readouterr().err
    with pytest.raises(UsageError, match="bfloat16 cannot convert this model: Scaled"):
        export(recipe_of(build), Target(tmp_path, "bars", precision="bfloat16"))


def test_answers_that_folding_would_move_are_left_alone(
    recipe_of: Callable[..., Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def strained(trained: TrainedModel) -> TrainedModel:
        """A mean a million times the spread: the bias that folding makes is rounded by more than the answers bear."""
        norm = next(o for o in trained.servable.core.layers if "batch_norm" in o.name)
        norm.moving_mean.assign(norm.moving_mean + 1e5)
        norm.beta.assign(norm.beta + 1e5 * norm.gamma / np.sqrt(norm.moving_variance + norm.epsilon))
        return trained

    version = export(recipe_of(normalised, strained), Target(tmp_path, "bars"))
    assert "Rsqrt" in graph_text(version)
    assert "probabilities would change by" in capsys.readouterr().err


def test_bfloat16_is_evaluated_beside_float32(recipe_of: Callable[..., Recipe], tmp_path: Path) -> None:
    import tensorflow as tf

    seen: list[TrainedModel] = []
    target = Target(tmp_path / "models", "bars", tmp_path / "reports", precision="bfloat16")
    version = export(recipe_of(normalised, lambda trained: seen.append(trained) or trained), target)
    (trained,) = seen
    card, golden = read_card(version), read_golden(version)
    assert card.golden.atol == served_form.ATOL["bfloat16"]
    assert np.array_equal(
        golden.probabilities, trained.servable.probabilities(golden.tensors)
    )  # the truth stays float32's
    assert card.metrics["float32_test_accuracy"] == trained.metrics["test_accuracy"]
    assert card.metrics["test_loss"] != card.metrics["float32_test_loss"] == trained.metrics["test_loss"]
    assert "float32 test accuracy" in (tmp_path / "reports" / "bars" / "1" / "index.html").read_text()

    loaded = tf.saved_model.load(str(version))
    kinds = {(variable.dtype.name, len(variable.shape)) for variable in loaded.kept}
    assert ("bfloat16", 4) in kinds  # the convolution
    assert ("float32", 4) in kinds  # the depthwise one
    answer = loaded.signatures["serving_default"](image=tf.constant(golden.tensors))["probabilities"]
    assert answer.dtype == tf.float32
    assert 0 < np.abs(np.asarray(answer) - golden.probabilities).max() <= card.golden.atol
    assert verify(version).ok


def test_bfloat16_is_refused_where_answers_move_too_far(recipe_of: Callable[..., Recipe], tmp_path: Path) -> None:
    def fragile(trained: TrainedModel) -> TrainedModel:
        """The difference of two numbers that are the same in eight bits decides."""
        image = keras.Input((28, 28, 1))
        mean = keras.ops.mean(image, axis=(1, 2)) / 255
        scores = layers.Dense(2, activation="softmax")
        hidden = layers.Dense(2, use_bias=False)
        core = keras.Model(image, scores(hidden(mean)))
        hidden.set_weights([np.array([[1.0, 1.001]], np.float32)])
        scores.set_weights([np.array([[-1e5, 0], [1e5, 0]], np.float32), np.array([0, 1e-3], np.float32)])
        return replace(trained, servable=servable_of_keras(KerasCall(core)))

    with pytest.raises(VerificationFailed, match="8 of 8 golden examples get another label"):
        export(recipe_of(normalised, fragile), Target(tmp_path, "bars", precision="bfloat16"))
    assert not (tmp_path / "bars").exists()
    assert export(recipe_of(normalised, fragile), Target(tmp_path, "bars")).name == "1"


def test_bfloat16_is_for_keras_models(bars_version: Path) -> None:
    from click.testing import CliRunner

    from export.__main__ import export as command

    models = bars_version.parents[1]
    arguments = ["ensemble", "bars", "bars", "--out", str(models), "--name", "both", "--precision", "bfloat16"]
    with pytest.raises(UsageError, match="is for Keras models"):
        CliRunner().invoke(command, arguments, catch_exceptions=False, standalone_mode=False)
    assert not (models / "both").exists()
