"""What a family hands to the pipeline: a model that is ready to be served, and what is known about it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.data.datasets import Split
from export.networks.keras_graph import Layer, layers_of_model
from serving.contract.card import Class, Source
from serving.contract.image import Pixels
from serving.contract.preprocessing import Preprocessing

Probabilities = npt.NDArray[np.float32]  # (n, classes)


def to_float32(values: Any) -> Any:
    """A tensor as float32."""
    import tensorflow as tf

    return tf.cast(values, tf.float32)


def unchanged(values: Any) -> Any:
    """The tensor itself."""
    return values


@dataclass(frozen=True, slots=True)
class KerasCall:
    """What a Keras model is asked with and what is made of its answer: uint8 or float pixels to probabilities.

    core: a model of floats (n, h, w, c). before: the tensor of the card to those floats. after: the core's output, as
    float32, to probabilities (n, k).
    """

    core: Any
    before: Callable[[Any], Any] = to_float32
    after: Callable[[Any], Any] = unchanged

    def __call__(self, image: Any) -> Any:
        """Probabilities float32 (n, k). image: (n, h, w, c) of the card's dtype."""
        return self.after(to_float32(self.core(self.before(image), training=False)))


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

    @property
    def core(self) -> Any:
        """The Keras model that answers; None where it is another graph."""
        return self.call.core if isinstance(self.call, KerasCall) else None

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


def servable_of_keras(call: KerasCall) -> Servable:
    """A Keras model, ready to be served."""
    lines: list[str] = []
    call.core.summary(print_fn=lines.append)
    return Servable(
        call=call,
        kept=arrays_of(call.core),
        parameters=int(call.core.count_params()),
        summary="\n".join(lines),
        layers=layers_of_model(call.core),
    )


def with_core(servable: Servable, core: Any) -> Servable:
    """The servable with another Keras model in the place of its own; what it tells people stays."""
    assert isinstance(servable.call, KerasCall)
    return replace(servable, call=replace(servable.call, core=core), kept=arrays_of(core))


def arrays_of(core: Any) -> tuple[Any, ...]:
    """What is saved of a Keras model: its arrays alone, without Keras's objects."""
    return tuple(variable.value for variable in core.variables)
