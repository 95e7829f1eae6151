"""The layers of Keras models."""

import numpy as np
import pytest

from export.networks.keras_graph import LayerInfo, layers_of_model
from export.networks.pretrained import classifier

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.integration


def test_layers_are_those_of_keras_with_the_models_inside_and_every_parameter() -> None:
    model = classifier("mobilenetv2", 32, 5, None)
    layers = {layer.name: layer for layer in layers_of_model(model)}
    assert sum(layer.parameters for layer in layers.values()) == model.count_params()
    added = next(layer for name, layer in layers.items() if name.endswith("/block_2_add"))
    assert {name.rsplit("/", 1)[1] for name in added.inputs} == {"block_1_project_BN", "block_2_project_BN"}
    assert layers["picture"].inputs == ()
    assert [layer.shape for layer in layers.values()][-1] == (5,)


def test_a_model_that_is_no_graph_is_one_layer() -> None:
    import keras

    class Own(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="own")
            self.dense = keras.layers.Dense(3)

        def call(self, image: object) -> object:
            return self.dense(image)

    own = Own()
    own(np.zeros((1, 2), np.float32))
    assert layers_of_model(own) == (LayerInfo("own", "Own", (), 9, ()),)
