"""`TrainedModel`: a model that is ready to be served and what is known about it. A family hands it to the pipeline."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.data.datasets import Split
from export.networks.keras_graph import KerasModel, LayerInfo, layers_of_model
from serving.contract.card import Class, Source
from serving.contract.image import Pixels
from serving.contract.preprocessing import Preprocessing

Probabilities = npt.NDArray[np.float32]  # (n, classes)


def to_float32(values: Any) -> Any:
    """Cast a tensor to float32."""
    import tensorflow as tf

    return tf.cast(values, tf.float32)


def unchanged(values: Any) -> Any:
    """Return the tensor as it is."""
    return values


@dataclass(frozen=True, slots=True)
class KerasCall:
    """A Keras model with the steps around it: from the card's tensor to probabilities.

    core: the model, from float (n, h, w, c) to its output. before: from the card's tensor to those floats. after: from
    the core's output, as float32, to probabilities (n, k).
    """

    core: KerasModel
    before: Callable[[Any], Any] = to_float32
    after: Callable[[Any], Any] = unchanged

    def __call__(self, image: Any) -> Any:
        """Compute probabilities, float32 (n, k). image: (n, h, w, c) of the card's dtype."""
        return self.after(to_float32(self.core(self.before(image), training=False)))


@dataclass(frozen=True, slots=True)
class Servable:
    """A function that TensorFlow can trace into a graph, and the variables that it uses.

    call: from a tensor of the card's dtype (n, h, w, c) to probabilities, float32 (n, k). kept: the objects whose
    variables are saved. summary, layers: a description for people; no layers where they are not known.
    """

    call: Callable[[Any], Any]
    kept: tuple[Any, ...]
    parameters: int
    summary: str
    layers: tuple[LayerInfo, ...] = ()
    copied_from: Path | None = None  # a SavedModel that is served unchanged
    signature: tuple[str, str, str] | None = None  # with copied_from: its signature, input and output

    @property
    def core(self) -> KerasModel | None:
        """The Keras model inside; None for any other graph."""
        return self.call.core if isinstance(self.call, KerasCall) else None

    def probabilities(self, tensors: npt.NDArray[Any]) -> Probabilities:
        """Run the model in this process. tensors: (n, h, w, c) of the card's dtype."""
        import tensorflow as tf

        return np.asarray(self.call(tf.constant(tensors)), np.float32)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A split and the model's probabilities for it."""

    split: Split
    probabilities: Probabilities


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model, its labels and preprocessing, and how it was trained and evaluated.

    examples: images for the golden examples. history: a number per epoch, under Keras's names. train, validation, test:
    None where the model was not trained here. temperature: already part of the servable. notice: of the licence of
    weights that others made, which travels with the version. told: what a person said about an adopted model.
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
    validation: Evaluated | None = None
    test: Evaluated | None = None
    notice: str = ""
    told: dict[str, str] = field(default_factory=dict)


def servable_of_keras(call: KerasCall) -> Servable:
    """Make a Keras model servable."""
    lines: list[str] = []
    call.core.summary(print_fn=lines.append)
    return Servable(
        call=call,
        kept=arrays_of(call.core),
        parameters=int(call.core.count_params()),
        summary="\n".join(lines),
        layers=layers_of_model(call.core),
    )


def with_core(servable: Servable, core: KerasModel) -> Servable:
    """Replace the Keras model of a servable; its description stays."""
    assert isinstance(servable.call, KerasCall)
    return replace(servable, call=replace(servable.call, core=core), kept=arrays_of(core))


def arrays_of(core: KerasModel) -> tuple[Any, ...]:
    """The variables of a Keras model that are saved: the arrays alone, without Keras's objects."""
    return tuple(variable.value for variable in core.variables)
