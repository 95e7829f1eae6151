"""Fold batch normalisation into the layer before it: the same answers, sooner.

A trained batch normalisation multiplies and adds, each a pass over all that the layer before it made, and Keras writes
it into the graph as just that. `w' = w * g / sqrt(v + e)` and `b' = beta + (b - m) * g / sqrt(v + e)` put it into that
layer's own weights. Source: Jacob et al., "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", 2018, section 3.2.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from export.networks.keras_graph import graph_of

Model = Any  # keras.Model; Keras has no types
Layer = Any
CHANNELS_LAST = -1


class CannotCloneError(Exception):
    """A layer cannot be made from its own config; the text names it."""


def fold_batch_norm(model: Model) -> Model:
    """A twin of the model without the batch normalisations that follow a linear layer; the model itself if none does.

    Models inside it are folded too. A normalisation stays where it cannot be put into one layer: before a layer, after
    an activation, and where either is used twice. Raises CannotCloneError.
    """
    graph = graph_of(model)
    pairs = {} if graph is None else {layer: norm for inner in _graphs(graph) for layer, norm in _foldable(inner)}
    return _folded(graph, pairs) if pairs else model


def cloned(
    graph: Model,
    clone: Callable[[Layer], Layer],
    *,
    call: Callable[..., Any] | None = None,
    weights: Callable[[Layer], list[Any]] | None = None,
) -> Model:
    """The graph with each of its operations, those of models inside it included, replaced by what `clone` makes of it.

    call: applies a clone to its inputs, where that is not simply calling it. weights: what a clone is given, by the
    layer that it is a clone of; by default that layer's own. Raises CannotCloneError.
    """
    import keras

    made: list[tuple[Layer, Layer]] = []

    def replaced(operation: Layer) -> Layer:
        inner = graph_of(operation)
        if inner is not None:
            return keras.models.clone_model(inner, clone_function=replaced, call_function=call)
        try:
            twin = clone(operation)
        except (TypeError, ValueError, NotImplementedError) as exc:  # its config is not what it is built with
            raise CannotCloneError(f"{type(operation).__name__} {operation.name}: {exc}") from exc
        made.append((operation, twin))
        return twin

    twin = keras.models.clone_model(graph, clone_function=replaced, call_function=call)
    for old, new in made:
        if new is not old and getattr(old, "weights", None):
            new.set_weights(weights(old) if weights else old.get_weights())
        if hasattr(new, "finalize_state"):
            new.finalize_state()  # of Normalization: what it works out from its weights
    return twin


def _folded(graph: Model, pairs: dict[Layer, Layer]) -> Model:
    dropped = {id(norm) for norm in pairs.values()}

    def clone(operation: Layer) -> Layer:
        if id(operation) in dropped:
            return operation  # it is not called
        changes = {"use_bias": True} if operation in pairs else {}
        return type(operation).from_config({**operation.get_config(), **changes})

    def call(operation: Layer, *args: Any, **kwargs: Any) -> Any:
        return args[0] if id(operation) in dropped else operation(*args, **kwargs)

    def weights(layer: Layer) -> list[Any]:
        return _merged(layer, pairs[layer]) if layer in pairs else list(layer.get_weights())

    return cloned(graph, clone, call=call, weights=weights)


def _graphs(graph: Model) -> list[Model]:
    """The graph and all that are inside it."""
    inner = [graph_of(operation) for operation in graph.operations]
    return [graph, *(found for nested in inner if nested is not None for found in _graphs(nested))]


def _foldable(graph: Model) -> list[tuple[Layer, Layer]]:
    """(layer, the normalisation of all that it makes and of nothing else), for each that can be folded."""
    import keras
    from keras import layers

    kinds = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Dense)
    nodes = [node for level in graph._nodes_by_depth.values() for node in level]
    uses = [node.operation for node in nodes]
    fed = [parent.operation for node in nodes for parent in node.parent_nodes]
    ends = [tensor._keras_history.operation for tensor in graph.outputs]
    found = []
    for node in nodes:
        norm = node.operation
        if type(norm) is not layers.BatchNormalization or len(node.parent_nodes) != 1 or uses.count(norm) > 1:
            continue
        layer = node.parent_nodes[0].operation
        if (
            type(layer) in kinds
            and layer.activation is keras.activations.linear
            and getattr(layer, "data_format", "channels_last") == "channels_last"
            and norm.axis in (CHANNELS_LAST, len(node.output_tensors[0].shape) - 1)
            and uses.count(layer) == fed.count(layer) == 1
            and layer not in ends
        ):
            found.append((layer, norm))
    return found


def _merged(layer: Layer, norm: Layer) -> list[Any]:
    """The weights of the layer and of the normalisation after it, as those of one layer with a bias."""
    from keras import layers

    *before, kernel = layer.get_weights()[: -1 if layer.use_bias else None]
    bias = np.asarray(layer.bias) if layer.use_bias else 0.0
    variance, mean = np.asarray(norm.moving_variance, np.float64), np.asarray(norm.moving_mean)
    gamma = np.asarray(norm.gamma) if norm.scale else 1.0
    beta = np.asarray(norm.beta) if norm.center else 0.0
    scale = gamma / np.sqrt(variance + norm.epsilon)
    # a depthwise kernel is (h, w, in, multiplier): its outputs are in * multiplier; all others end with the outputs
    across = scale.reshape(kernel.shape[2:]) if type(layer) is layers.DepthwiseConv2D else scale
    return [*before, (kernel * across).astype(np.float32), (beta + (bias - mean) * scale).astype(np.float32)]
