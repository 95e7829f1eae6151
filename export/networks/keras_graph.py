"""A Keras model as a graph of layers: connections, output shapes and parameters."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

KerasModel = Any  # keras.Model; Keras has no types
KerasLayer = Any  # keras.Layer or another operation of a graph
PASSES_VALUES_ON = ("Reshape", "Flatten", "Identity", "Cast", "Dropout", "Squeeze")  # kinds of operations


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """A layer under its own name. shape: of its output, without the batch. inputs: names of the layers that feed it."""

    name: str
    kind: str
    shape: tuple[int | None, ...]
    parameters: int
    inputs: tuple[str, ...]


def layers_of_model(model: KerasModel) -> tuple[LayerInfo, ...]:
    """List the layers of a Keras model, nested models included, each after the layers that feed it.

    A model that is not a graph of layers (a subclass with a `call` of its own) counts as one layer.
    """
    found: list[LayerInfo] = []
    _walk(model, "", (), found)
    return tuple(found)


def _walk(model: KerasModel, prefix: str, given: Sequence[str], found: list[LayerInfo]) -> str:
    """Append the model's layers to `found` and return the name of the last one.

    given: names of the layers that feed the model's inputs, in their order.
    """
    graph = graph_of(model)
    if graph is None:
        name = prefix.rstrip("/") or model.name
        found.append(LayerInfo(name, type(model).__name__, (), int(model.count_params()), tuple(given)))
        return found[-1].name
    ends: dict[str, str] = dict(
        zip((tensor._keras_history.operation.name for tensor in graph.inputs), given, strict=False)
    )
    nodes = {node.operation.name: node for level in graph._nodes_by_depth.values() for node in level}
    for operation in graph.operations:
        if operation.name in ends:
            continue
        node = nodes[operation.name]
        inputs = tuple(dict.fromkeys(ends[parent.operation.name] for parent in node.parent_nodes))
        name = prefix + operation.name
        if graph_of(operation) is not None:
            ends[operation.name] = _walk(operation, f"{name}/", inputs, found)
            continue
        parameters = operation.count_params() if hasattr(operation, "count_params") else 0
        shape = tuple(node.output_tensors[0].shape[1:])
        found.append(LayerInfo(name, type(operation).__name__, shape, int(parameters), inputs))
        ends[operation.name] = name
    return ends[graph.outputs[0]._keras_history.operation.name]


def graph_of(operation: KerasLayer) -> KerasModel | None:
    """The graph of layers inside an operation; None for a single layer and for a model without a graph."""
    graph = getattr(operation, "_functional", None) or operation
    return graph if hasattr(graph, "operations") else None


def first_operations(model: KerasModel) -> Generator[tuple[KerasLayer, tuple[float, ...]], None, bool]:
    """Yield the operations that an image passes first, in order, nested models before what is in them.

    With each, the numbers among its arguments: (255.0,) of a division by 255. Ends where the graph branches. Returns
    whether it reached the model's output.
    """
    graph = graph_of(model)
    if graph is None:
        return False
    nodes = [node for level in graph._nodes_by_depth.values() for node in level]
    at = next(node for node in nodes if node.operation is graph.inputs[0]._keras_history.operation)
    while True:
        following = [node for node in nodes if at in node.parent_nodes]
        if len(following) != 1:
            return not following
        at = following[0]
        given = [*at.arguments.args, *at.arguments.kwargs.values()]
        yield at.operation, tuple(float(value) for value in given if isinstance(value, int | float))
        if graph_of(at.operation) is not None:
            is_through = yield from first_operations(at.operation)
            if not is_through:
                return False


def last_operation(model: KerasModel) -> KerasLayer:
    """The operation that computes the values of the first output: reshaping and the like are passed over."""
    graph = graph_of(model)
    if graph is None:
        return model
    history = graph.outputs[0]._keras_history
    node = history.operation._inbound_nodes[history.node_index]
    while type(node.operation).__name__ in PASSES_VALUES_ON and node.parent_nodes:
        node = node.parent_nodes[0]
    return last_operation(node.operation) if graph_of(node.operation) is not None else node.operation
