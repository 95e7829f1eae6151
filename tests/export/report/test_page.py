"""The report: what it says of a model's layers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from PIL import Image

from export.networks.classic import googlenet
from export.networks.keras_graph import Layer, layers_of_model
from export.networks.pretrained import classifier
from export.options import Target
from export.pipeline import Recipe, export
from export.report.architecture_plot import plot
from export.report.page import write_report_again


def test_layers_are_those_of_keras_with_the_models_inside_and_every_parameter() -> None:
    model = classifier("mobilenetv2", 32, 5, None)
    layers = {layer.name: layer for layer in layers_of_model(model)}
    assert sum(layer.parameters for layer in layers.values()) == model.count_params()
    added = next(layer for name, layer in layers.items() if name.endswith("/block_2_add"))
    assert {name.rsplit("/", 1)[1] for name in added.inputs} == {"block_1_project_BN", "block_2_project_BN"}
    assert layers["picture"].inputs == ()
    assert [layer.shape for layer in layers.values()][-1] == (5,)


def test_a_layer_stands_below_those_that_feed_it_and_branches_beside_each_other() -> None:
    layers = layers_of_model(googlenet((32, 32, 3), 2))
    figure = plot(layers)
    captions = [text for text in figure.axes[0].texts if text.get_text()]
    assert len(captions) == len(layers)
    assert len({text.get_position() for text in captions}) == len(layers)
    places = {layer.name: text.get_position() for layer, text in zip(layers, captions, strict=True)}
    concatenated = next(layer for layer in layers if layer.kind == "Concatenate")
    assert len({places[name][0] for name in concatenated.inputs}) == 4
    assert all(places[name][1] < places[concatenated.name][1] for name in concatenated.inputs)


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
    assert layers_of_model(own) == (Layer("own", "Own", (), 9, ()),)


def test_the_report_shows_the_architecture(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    version = export(make_recipe(epochs=1), Target(tmp_path / "models", "bars", reports=tmp_path / "reports"))
    report = tmp_path / "reports" / "bars" / version.name
    first = (report / "index.html").read_text()
    assert 'src="architecture.png"' in first
    with Image.open(report / "architecture.png") as drawn:
        assert min(drawn.size) > 100
    (report / "architecture.png").unlink()
    assert write_report_again(report).read_text() == first
    assert (report / "architecture.png").exists()
