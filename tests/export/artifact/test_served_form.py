"""What is served of a Keras model: the same answers with fewer passes, or nearly the same in bfloat16."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from export.artifact import served_form
from export.artifact.batch_norm import CannotCloneError, fold_batch_norm
from export.artifact.verify import verify
from export.made import KerasCall, Made, servable_of_keras
from export.networks.keras_graph import graph_of
from export.options import Target
from export.pipeline import Recipe, export
from serving.contract.card import read_card
from serving.contract.errors import UsageError, VerificationFailed
from serving.contract.golden import read_golden

keras = pytest.importorskip("keras")
layers = keras.layers

SHAPE = (16, 16, 3)


def norms_of(model: Any) -> list[str]:
    """The batch normalisations of a model and of those inside it."""
    graph = graph_of(model)
    return [
        name
        for operation in graph.operations
        for name in (
            norms_of(operation)
            if graph_of(operation)
            else [operation.name] * isinstance(operation, layers.BatchNormalization)
        )
    ]


def randomised(model: Any) -> Any:
    """The model with weights, means and variances as a training could leave them."""
    random = np.random.default_rng(0)
    for variable in model.variables:
        if variable.dtype == "float32":
            low = 0.5 if "variance" in variable.path or "gamma" in variable.path else -0.5
            variable.assign(random.uniform(low, low + 1, variable.shape))
    return model


def answers(model: Any) -> npt.NDArray[np.float32]:
    pixels = np.random.default_rng(1).uniform(-1, 1, (4, *SHAPE)).astype(np.float32)
    return np.asarray(model(pixels, training=False), np.float32)


def with_norms(layer: Any, **norm: Any) -> Any:
    stack = [keras.Input(SHAPE), layer, layers.BatchNormalization(name="norm", **norm), layers.ReLU(6.0)]
    return randomised(keras.Sequential([*stack, layers.GlobalAveragePooling2D(), layers.Dense(3)]))


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(5, 3),
        layers.Conv2D(6, 3, strides=2, groups=3, use_bias=False, padding="same"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
        layers.SeparableConv2D(5, 3, depth_multiplier=2, use_bias=False),
        layers.Dense(4),
    ],
    ids=lambda layer: type(layer).__name__,
)
@pytest.mark.parametrize("norm", [{}, {"scale": False}, {"center": False, "epsilon": 0.1}], ids=str)
def test_a_normalisation_goes_into_the_layer_before_it(layer: Any, norm: dict[str, Any]) -> None:
    model = with_norms(type(layer).from_config(layer.get_config()), **norm)
    folded = fold_batch_norm(model)
    assert norms_of(model) == ["norm"]
    assert norms_of(folded) == []
    assert np.allclose(answers(folded), answers(model), atol=2e-5, rtol=1e-5)


def test_models_inside_a_model_are_folded_too() -> None:
    image = keras.Input(SHAPE)
    inner = with_norms(layers.Conv2D(5, 3))
    model = keras.Model(image, keras.ops.softmax(inner(image / 2.0 - 0.1)))
    folded = fold_batch_norm(model)
    assert (norms_of(model), norms_of(folded)) == (["norm"], [])
    assert np.allclose(answers(folded), answers(model), atol=2e-6)


def test_what_was_learnt_about_pixels_goes_along() -> None:
    pixels = layers.Normalization()
    pixels.adapt(np.random.default_rng(0).normal(3, 2, (50, *SHAPE)).astype(np.float32))
    image = keras.Input(SHAPE)
    convolved = layers.BatchNormalization()(layers.Conv2D(4, 3)(pixels(image)))
    model = keras.Model(image, layers.GlobalAveragePooling2D()(convolved))
    folded = fold_batch_norm(model)
    assert norms_of(folded) == []
    assert np.allclose(answers(folded), answers(model), atol=1e-5)


def test_a_normalisation_stays_where_it_cannot_be_put_into_one_layer() -> None:
    image = keras.Input(SHAPE)
    first = layers.BatchNormalization(name="before_any_layer")(image)
    active = layers.BatchNormalization(name="after_an_activation")(layers.Conv2D(4, 3, activation="relu")(first))
    shared = layers.Conv2D(4, 3)(active)
    normal = layers.BatchNormalization(name="layer_used_twice")(shared)
    twice = layers.BatchNormalization(name="used_twice")
    once, again = twice(layers.Conv2D(4, 1)(normal)), twice(layers.Conv2D(4, 1)(normal))
    foldable = layers.BatchNormalization(name="foldable")(layers.Conv2D(4, 1)(layers.Add()([once, again, shared])))
    model = randomised(keras.Model(image, foldable))
    folded = fold_batch_norm(model)
    stay = ["before_any_layer", "after_an_activation", "layer_used_twice", "used_twice"]
    assert sorted(norms_of(folded)) == sorted(stay)
    assert np.allclose(answers(folded), answers(model), rtol=1e-5, atol=1e-4)


def test_a_model_with_nothing_to_fold_is_left_alone(build_tiny: Callable[..., Any]) -> None:
    plain = build_tiny((28, 28, 1), 2)
    assert fold_batch_norm(plain) is plain

    class OwnCall(keras.Model):  # type: ignore[misc, name-defined]
        def call(self, image: Any) -> Any:
            return image

    own = OwnCall()
    assert fold_batch_norm(own) is own


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

    def make(build: Callable[..., Any], change: Callable[[Made], Made] = lambda made: made) -> Recipe:
        made = make_recipe(build=build, epochs=4).make
        return Recipe("bars", lambda: change(made()))

    return make


def graph_text(version: Path) -> str:
    return (version / "saved_model.pb").read_bytes().decode("latin-1")


def test_the_published_graph_has_no_normalisation_and_answers_as_keras(
    recipe_of: Callable[..., Recipe], tmp_path: Path
) -> None:
    seen: list[Made] = []
    version = export(recipe_of(normalised, lambda made: seen.append(made) or made), Target(tmp_path, "bars"))
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
    with pytest.raises(UsageError, match="bfloat16: Scaled"):
        export(recipe_of(build), Target(tmp_path, "bars", precision="bfloat16"))


def test_answers_that_folding_would_move_are_left_alone(
    recipe_of: Callable[..., Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def strained(made: Made) -> Made:
        """A mean a million times the spread: the bias that folding makes is rounded by more than the answers bear."""
        norm = next(o for o in made.servable.core.layers if "batch_norm" in o.name)
        norm.moving_mean.assign(norm.moving_mean + 1e5)
        norm.beta.assign(norm.beta + 1e5 * norm.gamma / np.sqrt(norm.moving_variance + norm.epsilon))
        return made

    version = export(recipe_of(normalised, strained), Target(tmp_path, "bars"))
    assert "Rsqrt" in graph_text(version)
    assert "answers would move by" in capsys.readouterr().err


def test_bfloat16_is_judged_beside_float32(recipe_of: Callable[..., Recipe], tmp_path: Path) -> None:
    import tensorflow as tf

    seen: list[Made] = []
    target = Target(tmp_path / "models", "bars", tmp_path / "reports", precision="bfloat16")
    version = export(recipe_of(normalised, lambda made: seen.append(made) or made), target)
    (made,) = seen
    card, golden = read_card(version), read_golden(version)
    assert card.golden.atol == served_form.ATOL["bfloat16"]
    assert np.array_equal(
        golden.probabilities, made.servable.probabilities(golden.tensors)
    )  # the truth stays float32's
    assert card.metrics["float32_test_accuracy"] == made.metrics["test_accuracy"]
    assert card.metrics["test_loss"] != card.metrics["float32_test_loss"] == made.metrics["test_loss"]
    assert "float32_test_accuracy" in (tmp_path / "reports" / "bars" / "1" / "index.html").read_text()

    loaded = tf.saved_model.load(str(version))
    kinds = {(variable.dtype.name, len(variable.shape)) for variable in loaded.kept}
    assert ("bfloat16", 4) in kinds  # the convolution
    assert ("float32", 4) in kinds  # the depthwise one
    answer = loaded.signatures["serving_default"](image=tf.constant(golden.tensors))["probabilities"]
    assert answer.dtype == tf.float32
    assert 0 < np.abs(np.asarray(answer) - golden.probabilities).max() <= card.golden.atol
    assert verify(version).ok


def test_bfloat16_is_refused_where_answers_move_too_far(recipe_of: Callable[..., Recipe], tmp_path: Path) -> None:
    def fragile(made: Made) -> Made:
        """The difference of two numbers that are the same in eight bits decides."""
        image = keras.Input((28, 28, 1))
        mean = keras.ops.mean(image, axis=(1, 2)) / 255
        scores = layers.Dense(2, activation="softmax")
        hidden = layers.Dense(2, use_bias=False)
        core = keras.Model(image, scores(hidden(mean)))
        hidden.set_weights([np.array([[1.0, 1.001]], np.float32)])
        scores.set_weights([np.array([[-1e5, 0], [1e5, 0]], np.float32), np.array([0, 1e-3], np.float32)])
        return replace(made, servable=servable_of_keras(KerasCall(core)))

    with pytest.raises(VerificationFailed, match=r"8 of 8 golden examples get another label"):
        export(recipe_of(normalised, fragile), Target(tmp_path, "bars", precision="bfloat16"))
    assert list((tmp_path / "bars").iterdir()) == []
    assert export(recipe_of(normalised, fragile), Target(tmp_path, "bars")).name == "1"


def test_bfloat16_is_for_keras_models(bars_version: Path) -> None:
    from click.testing import CliRunner

    from export.__main__ import export as command

    models = bars_version.parents[1]
    arguments = ["ensemble", "bars", "bars", "--out", str(models), "--name", "both", "--precision", "bfloat16"]
    with pytest.raises(UsageError, match="is for Keras models"):
        CliRunner().invoke(command, arguments, catch_exceptions=False, standalone_mode=False)
    assert not list((models / "both").iterdir())


def test_a_graph_without_layers_cannot_be_cloned() -> None:
    from export.artifact.bfloat16 import in_bfloat16

    class OwnCall(keras.Model):  # type: ignore[misc, name-defined]
        def call(self, image: Any) -> Any:
            return image

    with pytest.raises(CannotCloneError, match="OwnCall has a `call` of its own"):
        in_bfloat16(OwnCall())
