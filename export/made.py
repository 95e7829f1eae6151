"""What a family hands to the pipeline: a model that is ready to be served, and what is known about it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.architecture_plot import Layer, layers_of_model
from export.datasets import Split
from serving.contract.card import Class, Source
from serving.contract.image import Pixels
from serving.contract.preprocessing import Preprocessing

Probabilities = npt.NDArray[np.float32]  # (n, classes)


@dataclass(frozen=True, slots=True)
class Servable:
    """A function that TensorFlow can put into a graph, and what it holds.

    call: a tensor of the card's dtype (n, h, w, c) to probabilities float32 (n, k). kept: the objects whose variables
    are saved. summary, layers: what the model is made of, for people; no layers where they are not known.
    """

    call: Callable[[Any], Any]
    kept: tuple[Any, ...]
    parameters: int
    summary: str
    layers: tuple[Layer, ...] = ()
    copied_from: Path | None = None  # a SavedModel that is served as it is
    signature: tuple[str, str, str] | None = None  # with copied_from: its signature, input and output

    def probabilities(self, tensors: npt.NDArray[Any]) -> Probabilities:
        """What the model answers in this process. tensors: (n, h, w, c)."""
        import tensorflow as tf

        return np.asarray(self.call(tf.constant(tensors)), np.float32)


@dataclass(frozen=True, slots=True)
class Judged:
    """A split and what the model says of it."""

    split: Split
    probabilities: Probabilities


@dataclass(frozen=True, slots=True)
class Made:
    """A model and its story. examples: pictures for the golden examples. history: a number per epoch, by Keras's names.

    validation, test, train are None where the model was not trained here. temperature is in the model already.
    """

    servable: Servable
    preprocessing: Preprocessing
    labels: tuple[Class, ...]
    source: Source
    examples: tuple[Pixels, ...]
    epochs: int = 0
    seed: int = 0
    seconds: float = 0.0
    temperature: float = 1.0
    metrics: dict[str, float] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    train: Split | None = None
    validation: Judged | None = None
    test: Judged | None = None


def servable_of_keras(core: Any) -> Servable:
    """A Keras model from float32 (n, h, w, c) in 0-255 to probabilities, to be asked with uint8."""
    import tensorflow as tf

    lines: list[str] = []
    core.summary(print_fn=lines.append)
    return Servable(
        call=lambda image: tf.cast(core(tf.cast(image, tf.float32), training=False), tf.float32),
        kept=tuple(variable.value for variable in core.variables),  # the arrays alone, without Keras's objects
        parameters=int(core.count_params()),
        summary="\n".join(lines),
        layers=layers_of_model(core),
    )
