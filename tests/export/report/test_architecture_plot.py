"""The drawing of a network."""

import pytest

from export.networks.classic import googlenet
from export.networks.keras_graph import layers_of_model
from export.report.architecture_plot import plot

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.integration


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
