"""The scaling is said or found, and never guessed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from export.adoption.loaded_model import LoadedModel
from export.adoption.scaling import NAMED, Scaling, found_in_model, scaling_of, scaling_said
from export.data.uint8_input import uint8_preprocessing
from export.networks.pretrained import BACKBONES, normalised
from serving.contract.errors import UsageError
from tests.export.adoption.own_models import network, small

keras = pytest.importorskip("keras")

L = keras.layers


def loaded(core: Any = None, dtype: str = "float32") -> LoadedModel:
    return LoadedModel(call=lambda x: x, shape=(12, 12, 3), dtype=dtype, activation=None, parameters=0, core=core)


def adapted(pixels: float) -> Any:
    layer = L.Normalization()
    layer.adapt(np.random.default_rng(0).uniform(0, pixels, (20, 12, 12, 3)).astype(np.float32))
    return layer


def divided(by: float, minus: float) -> Any:
    image = keras.Input((12, 12, 3))
    return keras.Model(image, L.Dense(3)(L.Flatten()(image / by - minus)))


@pytest.mark.parametrize("name", ["unit", "tf", "torch", "caffe", "raw"])
def test_a_name_gives_the_same_numbers_in_the_graph_and_in_the_card(name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8)
    card = replace(uint8_preprocessing("rgb", (6, 5), "stretch"), **NAMED[name].card_fields(3))
    graph = np.asarray(NAMED[name].in_graph(pixels[None].astype(np.float32)))[0]
    assert np.allclose(graph, card.apply(pixels), atol=1e-5)
    reference = pixels / 255 if name == "unit" else normalised(pixels[None].astype(np.float32), name)[0]
    assert np.allclose(graph, reference, atol=1e-5)


def test_an_unknown_scaling_is_asked_for_with_the_choices() -> None:
    with pytest.raises(UsageError) as error:
        scaling_of(loaded(small()), None, 3)
    assert error.value.exit_status == 2
    for choice in ("raw", "unit", "tf", "torch", "caffe", "--scale", "--mean"):
        assert choice in error.value.hint


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (lambda: small("softmax", 3, L.Rescaling(1 / 255)), "raw"),
        (lambda: small("softmax", 3, L.Rescaling(1 / 127.5, offset=-1)), "raw"),
        (lambda: small("softmax", 3, L.RandomFlip(), L.RandomRotation(0.1), L.Rescaling(1 / 255)), "raw"),
        (lambda: small("softmax", 3, keras.Sequential([L.RandomFlip()]), L.Rescaling(1 / 255)), "raw"),
        (lambda: small("softmax", 3, keras.Sequential([L.Rescaling(1 / 255), L.RandomFlip()])), "raw"),
        (lambda: small("softmax", 3, L.Rescaling(2, offset=-1)), "unit"),
        (lambda: small("softmax", 3, adapted(255)), "raw"),
        (lambda: small("softmax", 3, adapted(1)), "unit"),
        (lambda: divided(255.0, 0.5), "raw"),
        (lambda: divided(127.5, 1.0), "raw"),
    ],
)
def test_the_models_first_layer_says_the_scaling(model: Any, name: str) -> None:
    found = found_in_model(model())
    assert found is not None
    assert replace(found, origin="") == NAMED[name]


@pytest.mark.parametrize(
    "model",
    [
        small,
        lambda: small("softmax", 3, L.Rescaling(0.1)),  # neither of 255 nor of 1
        lambda: small("softmax", 3, L.Conv2D(3, 1), L.Rescaling(1 / 255)),  # not of pixels
        lambda: divided(3.0, 0.0),
    ],
)
def test_what_says_nothing_about_pixels_is_not_taken_for_a_scaling(model: Any) -> None:
    assert found_in_model(model()) is None


@pytest.mark.parametrize(
    "name", ["mobilenetv2", "vgg16", "resnet50v2", "densenet121", "nasnetmobile", "efficientnetb0"]
)
def test_a_network_of_keras_applications_is_known_by_its_name(name: str) -> None:
    build = getattr(keras.applications, BACKBONES[name].builder)
    size = 224 if name == "nasnetmobile" else 64
    body = build(weights=None, include_top=False, input_shape=(size, size, 3))
    model = network(body, L.GlobalAveragePooling2D(), L.Dense(3), shape=(size, size, 3))
    found = found_in_model(model)
    assert found is not None
    assert replace(found, origin="") == NAMED[BACKBONES[name].mode]


def test_a_name_alone_does_not_make_another_network_a_known_one() -> None:
    body = keras.Sequential([keras.Input((12, 12, 3)), L.Conv2D(4, 3, name="first")], name="vgg16")
    assert found_in_model(network(body, L.Flatten(), L.Dense(3))) is None


def test_a_rescaling_before_a_known_network_is_the_scaling() -> None:
    body = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(32, 32, 3), alpha=0.35)
    model = network(L.Rescaling(1 / 255), body, L.Flatten(), L.Dense(3), shape=(32, 32, 3))
    found = found_in_model(model)
    assert found is not None
    assert found.scale == 1
    assert "Rescaling" in found.origin


def test_float_scaling_of_integer_pixels_is_refused() -> None:
    with pytest.raises(UsageError, match="takes uint8 pixels"):
        scaling_of(loaded(dtype="uint8"), scaling_said("unit", None, None, None, None), 3)
    for said in (None, scaling_said("raw", None, None, None, None)):
        assert scaling_of(loaded(dtype="uint8"), said, 3).scale == 1


def test_a_name_and_numbers_are_not_both_taken() -> None:
    with pytest.raises(UsageError, match="--preprocess unit and --scale both"):
        scaling_said("unit", 0.5, None, None, None)
    said = scaling_said(None, 0.5, (1.0,), None, "bgr")
    assert said is not None
    assert replace(said, origin="") == Scaling(0.5, (1.0,), (1.0,), "bgr")


def test_numbers_for_other_channels_than_the_models_are_refused() -> None:
    with pytest.raises(UsageError, match="3 numbers of mean"):
        scaling_of(loaded(), NAMED["torch"], 1)
    with pytest.raises(UsageError, match="gray"):
        scaling_of(loaded(), Scaling(channel_order="bgr"), 1)
    with pytest.raises(UsageError, match="zero"):
        scaling_said(None, None, None, (0.0,), None)
