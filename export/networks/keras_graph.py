"""The layers of a Keras model as a graph: what feeds what, the shapes, the parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer, by the model's own names. shape: of its output, without the batch. inputs: the layers that feed it."""

    name: str
    kind: str
    shape: tuple[int | None, ...]
    parameters: int
    inputs: tuple[str, ...]


def layers_of_model(model: Any) -> tuple[Layer, ...]:
    """The layers of a Keras model, those of models inside it included, each after the ones that feed it.

    A model that is not a graph of layers (a subclass with a `call` of its own) is one layer.
    """
    found: list[Layer] = []
    _walk(model, "", (), found)
    return tuple(found)


def _walk(model: Any, prefix: str, given: Sequence[str], found: list[Layer]) -> str:
    """Append the model's layers. given: what feeds its inputs, in their order. Returns the layer that it ends with."""
    graph = graph_of(model)
    if graph is None:
        found.append(
            Layer(prefix.rstrip("/") or model.name, type(model).__name__, (), int(model.count_params()), tuple(given))
        )
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
        found.append(Layer(name, type(operation).__name__, shape, int(parameters), inputs))
        ends[operation.name] = name
    return ends[graph.outputs[0]._keras_history.operation.name]


def graph_of(operation: Any) -> Any:
    """The graph of layers that an operation is made of, None where it is one layer or has none."""
    graph = getattr(operation, "_functional", None) or operation
    return graph if hasattr(graph, "operations") else None
