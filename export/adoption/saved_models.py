"""Load a SavedModel, and read from its graph what its output is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from export.adoption.loaded_model import Activation, LoadedModel, require_any_batch, require_one_input, the_output
from serving.contract.errors import InvalidData
from serving.contract.versions import SAVED_MODEL_FILE, SERVE_TAG

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
PASSES_VALUES_ON = ("Identity", "StopGradient", "EnsureShape", "Reshape", "Squeeze", "Cast")
ACTIVATIONS: dict[str, Activation] = {
    "Softmax": "softmax",
    "Sigmoid": "sigmoid",
    "BiasAdd": "linear",
    "MatMul": "linear",
    "Add": "linear",
    "AddV2": "linear",
}


def load_saved_model(path: Path, signature: str, output_name: str | None) -> LoadedModel:
    """Load a signature with one input, and one output or the one that is named. Raises InvalidData, UsageError."""
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(path))
    except (OSError, ValueError, KeyError, RuntimeError, tf.errors.OpError) as exc:
        reason = (str(exc).splitlines() or [type(exc).__name__])[0].rstrip(".")
        raise InvalidData(f"{path} is not a SavedModel that can be loaded: {reason}.") from exc
    known = list(loaded.signatures)
    if signature not in known:
        raise InvalidData(
            f"{path} has no signature {signature}.", hint=f"Its signatures are: {', '.join(known) or 'none'}."
        )
    function = loaded.signatures[signature]
    inputs = function.structured_input_signature[1]
    name = require_one_input(list(inputs))
    output = the_output(list(function.structured_outputs), output_name)
    spec = inputs[name]
    if spec.dtype == tf.string:
        raise InvalidData(
            f"The signature {signature} takes encoded images as strings ({name}); Sightline sends pixels.",
            hint="Adopt a signature that takes pixels (--signature NAME), or save one: the model behind its decoding.",
        )
    if spec.shape.rank:
        require_any_batch(spec.shape[0])
    variables = getattr(loaded, "variables", None) or function.variables
    return LoadedModel(
        call=lambda image: tf.cast(function(**{name: tf.cast(image, spec.dtype)})[output], tf.float32),
        shape=None if spec.shape.rank is None else tuple(spec.shape[1:]),
        dtype=spec.dtype.name,
        activation=activation_of(path, signature, output),
        kept=(loaded,),
        parameters=int(sum(np.prod(variable.shape) for variable in variables)),
        summary=f"SavedModel {path.name}, signature {signature}: {name} {spec} -> {output}",
        signature=(signature, name, output),
    )


def activation_of(path: Path, signature: str, output: str) -> Activation | None:
    """Read the operation that computes an output from the graph on disk; None where it is another one."""
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        saved = saved_model_pb2.SavedModel.FromString((path / SAVED_MODEL_FILE).read_bytes())
    except OSError:  # such as a SavedModel in text form
        return None
    graph = next((graph for graph in saved.meta_graphs if SERVE_TAG in graph.meta_info_def.tags), None)
    if graph is None:
        return None
    functions = {function.signature.name: function for function in graph.graph_def.library.function}
    nodes = {node.name: node for node in graph.graph_def.node}
    return ACTIVATIONS.get(_operation(graph.signature_def[signature].outputs[output].name, nodes, functions))


def _operation(tensor: str, nodes: Mapping[str, Any], functions: Mapping[str, Any]) -> str:
    """Follow a tensor backwards, into the functions that are called, to the operation that computes its values.

    tensor: "node:0" in a graph, "node:output:0" in a function. Returns "" for an argument of a function.
    """
    name, _, rest = tensor.partition(":")
    node = nodes.get(name)
    if node is None:
        return ""
    if node.op in PASSES_VALUES_ON:
        return _operation(node.input[0], nodes, functions)
    if node.op not in CALLS:
        return str(node.op)
    function = functions[node.attr["f"].func.name]
    argument = function.signature.output_arg[int(rest.rpartition(":")[2] or 0)].name
    return _operation(function.ret[argument], {inner.name: inner for inner in function.node_def}, functions)
