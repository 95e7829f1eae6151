"""Batch normalisation folded into the layer before it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from export.artifact.batch_norm import fold_batch_norm
from export.networks.keras_graph import graph_of

keras = pytest.importorskip("keras")

pytestmark = pytest.mark.integration

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
