"""A small Keras model to adopt, and the golden examples of a version."""

import json
from pathlib import Path
from typing import Any

from serving.contract.card import ModelCard, read_card


def small_model(activation: str | None, units: int = 3, channels: int = 3) -> Any:
    import keras

    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((20, 24, channels)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(units, activation=activation),
        ]
    )


def read_golden_of(version: Path) -> Any:
    from serving.contract.golden import read_golden

    card: ModelCard = read_card(version)
    golden = read_golden(version)
    assert golden.probabilities.shape == (len(golden), len(card.labels))
    assert json.loads((version / "assets.extra" / "model_card.json").read_text())["golden"]["n"] == len(golden)
    return golden
