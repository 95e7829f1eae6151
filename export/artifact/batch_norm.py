"""Fold batch normalisation into the layer before it: the same answers in less time.

A trained batch normalisation is a multiplication and an addition, each a pass over the output of the layer before it.
`w' = w * g / sqrt(v + e)` and `b' = beta + (b - m) * g / sqrt(v + e)` put both into that layer's weights. Source: Jacob
et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", 2018, section
3.2.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from export.networks.keras_graph import KerasLayer, KerasModel, graph_of

CHANNELS_LAST = -1


class CannotCloneError(Exception):
    """A layer cannot be rebuilt from its own config; the text names it."""


def fold_batch_norm(model: KerasModel) -> KerasModel:
    """Copy the model without the batch normalisations that follow a linear layer; return the model itself if none does.

    Nested models are folded too. A normalisation stays where it does not belong to exactly one layer: before a layer,
    after an activation, and where either is used twice. Raises CannotCloneError.
    """
    graph = graph_of(model)
    pairs = {} if graph is None else {layer: norm for inner in _graphs(graph) for layer, norm in _foldable(inner)}
    return _folded(graph, pairs) if pairs else model


def clone_graph(
    graph: KerasModel,
    clone: Callable[[KerasLayer], KerasLayer],
    *,
    call: Callable[..., Any] | None = None,
    weights: Callable[[KerasLayer], list[Any]] | None = None,
) -> KerasModel:
    """Copy a graph, cloning each operation, those of nested models included, with `clone`.

    call: applies a clone to its inputs; by default calls it. weights: the weights of a clone, given the original layer;
    by default that layer's own. Raises CannotCloneError.
    """
    import keras

    clones: list[tuple[KerasLayer, KerasLayer]] = []

    def replaced(operation: KerasLayer) -> KerasLayer:
        inner = graph_of(operation)
        if inner is not None:
            return keras.models.clone_model(inner, clone_function=replaced, call_function=call)
        try:
            twin = clone(operation)
        except (TypeError, ValueError, NotImplementedError) as exc:  # its config does not match its constructor
            raise CannotCloneError(f"{type(operation).__name__} {operation.name}: {exc}") from exc
        clones.append((operation, twin))
        return twin

    twin = keras.models.clone_model(graph, clone_function=replaced, call_function=call)
    for old, new in clones:
        if new is not old and getattr(old, "weights", None):
            new.set_weights(weights(old) if weights else old.get_weights())
        if hasattr(new, "finalize_state"):
            new.finalize_state()  # Normalization derives values from its weights
    return twin


def _folded(graph: KerasModel, pairs: dict[KerasLayer, KerasLayer]) -> KerasModel:
    dropped = {id(norm) for norm in pairs.values()}

    def clone(operation: KerasLayer) -> KerasLayer:
        if id(operation) in dropped:
            return operation  # it is never called
        changes = {"use_bias": True} if operation in pairs else {}
        return type(operation).from_config({**operation.get_config(), **changes})

    def call(operation: KerasLayer, *args: Any, **kwargs: Any) -> Any:
        return args[0] if id(operation) in dropped else operation(*args, **kwargs)

    def weights(layer: KerasLayer) -> list[Any]:
        return _merged(layer, pairs[layer]) if layer in pairs else list(layer.get_weights())

    return clone_graph(graph, clone, call=call, weights=weights)


def _graphs(graph: KerasModel) -> list[KerasModel]:
    """The graph and all nested ones."""
    inner = [graph_of(operation) for operation in graph.operations]
    return [graph, *(found for nested in inner if nested is not None for found in _graphs(nested))]


def _foldable(graph: KerasModel) -> list[tuple[KerasLayer, KerasLayer]]:
    """Find pairs (layer, normalisation) where the normalisation takes this layer's output and nothing else does."""
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


def _merged(layer: KerasLayer, norm: KerasLayer) -> list[Any]:
    """Merge the weights of a layer and its normalisation into those of one layer with a bias."""
    from keras import layers

    *before, kernel = layer.get_weights()[: -1 if layer.use_bias else None]
    bias = np.asarray(layer.bias) if layer.use_bias else 0.0
    variance, mean = np.asarray(norm.moving_variance, np.float64), np.asarray(norm.moving_mean)
    gamma = np.asarray(norm.gamma) if norm.scale else 1.0
    beta = np.asarray(norm.beta) if norm.center else 0.0
    scale = gamma / np.sqrt(variance + norm.epsilon)
    # the last axis of a kernel is the outputs; a depthwise one, (h, w, in, multiplier), has in * multiplier of them
    across = scale.reshape(kernel.shape[2:]) if type(layer) is layers.DepthwiseConv2D else scale
    return [*before, (kernel * across).astype(np.float32), (beta + (bias - mean) * scale).astype(np.float32)]
