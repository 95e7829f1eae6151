"""Classify, Regress and MultiInference: tf.Examples go into the graph, which parses them itself.

Source: tensorflow_serving/servables/tensorflow/{classifier,regressor,multi_inference,util}.cc.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.model_server.calls.predict import DEFAULT_SIGNATURE, version_of
from serving.runtimes.runtime import Runtime
from serving.runtimes.status import failed_precondition, invalid_argument
from serving.runtimes.tensors import Array

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"  # a signature's method_name
INPUTS, CLASSES, SCORES, OUTPUTS = "inputs", "classes", "scores", "outputs"


def classify(model: Runtime, request: Any, result: Any, deadline: float | None) -> str:
    """Fill a ClassificationResult with the labels and scores of each example. Returns the signature's name."""
    name, signature = _signature(model, request.model_spec)
    aliases = _classify_outputs(signature)
    examples = _serialized(request.input)
    arrays = _run(model, signature, examples, aliases, deadline)
    _fill_classes(dict(zip(aliases, arrays, strict=True)), len(examples), result)
    return name


def regress(model: Runtime, request: Any, result: Any, deadline: float | None) -> str:
    """Fill a RegressionResult with a value for each example. Returns the signature's name."""
    name, signature = _signature(model, request.model_spec)
    _require_regress_outputs(signature)
    examples = _serialized(request.input)
    (values,) = _run(model, signature, examples, [OUTPUTS], deadline)
    _fill_values(values, len(examples), result)
    return name


def multi_inference(model: Runtime, request: Any, response: Any, deadline: float | None) -> None:
    """Run several signatures over the same examples, in one run of the graph; fill `results` in their order."""
    tasks = list(request.tasks)
    _check_tasks(tasks)
    chosen = [_signature(model, task.model_spec) for task in tasks]
    inputs = {signature.inputs[INPUTS].name for _, signature in chosen if INPUTS in signature.inputs}
    if len(inputs) > 1:
        raise invalid_argument("Input tensor must be the same for all Signatures.")
    wanted = [_outputs_of(task.method_name, signature) for task, (_, signature) in zip(tasks, chosen, strict=True)]
    examples = _serialized(request.input)
    fetches = [
        signature.outputs[a].name for (_, signature), aliases in zip(chosen, wanted, strict=True) for a in aliases
    ]
    arrays = iter(model.run({inputs.pop(): examples}, fetches, deadline))
    for task, (name, _), aliases in zip(tasks, chosen, wanted, strict=True):
        result = response.results.add()
        result.model_spec.name, result.model_spec.signature_name = task.model_spec.name, name
        own = {alias: next(arrays) for alias in aliases}
        if task.method_name == CLASSIFY:
            _fill_classes(own, len(examples), result.classification_result)
        else:
            _fill_values(own[OUTPUTS], len(examples), result.regression_result)


def _check_tasks(tasks: Sequence[Any]) -> None:
    if not tasks:
        raise invalid_argument("Inference request must have at least one task")
    first = tasks[0].model_spec
    names = set()
    for task in tasks:
        if task.model_spec.name != first.name:
            raise invalid_argument(
                f"All ModelSpecs in a MultiInferenceRequest must access the same model name. Expected: {first.name}. "
                f"Found Model: {task.model_spec.name}"
            )
        if version_of(task.model_spec) != version_of(first):
            raise invalid_argument("All ModelSpecs in a MultiInferenceRequest must access the same model version.")
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name in names:
            raise invalid_argument(f"Duplicate evaluation of signature: {name}")
        names.add(name)


def _outputs_of(method: str, signature: Any) -> list[str]:
    if method == CLASSIFY:
        return _classify_outputs(signature)
    if method == REGRESS:
        _require_regress_outputs(signature)
        return [OUTPUTS]
    raise invalid_argument(f"Unsupported signature method_name: {method}")


def _signature(model: Runtime, spec: Any) -> tuple[str, Any]:
    name = spec.signature_name or DEFAULT_SIGNATURE
    if name not in model.signatures:
        raise invalid_argument(f"No signature was found with the name: {name}")
    return name, model.signatures[name]


def _require_one_input(signature: Any) -> None:
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if INPUTS not in signature.inputs:
        raise failed_precondition(f"No {INPUTS} found in signature.")


def _classify_outputs(signature: Any) -> list[str]:
    _require_one_input(signature)
    if len(signature.outputs) not in (1, 2):
        raise invalid_argument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    aliases = [alias for alias in (CLASSES, SCORES) if alias in signature.outputs]
    if not aliases:
        raise invalid_argument(f"Expected classification signature outputs to contain {CLASSES} or {SCORES}")
    return aliases


def _require_regress_outputs(signature: Any) -> None:
    _require_one_input(signature)
    if len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    if OUTPUTS not in signature.outputs:
        raise failed_precondition(f"No {OUTPUTS} found in signature.")


def _serialized(request_input: Any) -> Array:
    """The examples as the strings that the graph parses; a context's features give way to the example's."""
    kind = request_input.WhichOneof("kind")
    if kind == "example_list":
        serialized = [example.SerializeToString() for example in request_input.example_list.examples]
    elif kind == "example_list_with_context":
        listed = request_input.example_list_with_context
        context = listed.context.SerializeToString()  # concatenated messages are merged when they are parsed
        serialized = [context + example.SerializeToString() for example in listed.examples]
    else:
        serialized = []
    if not serialized:
        raise invalid_argument("Input is empty.")
    array = np.empty(len(serialized), dtype=object)
    array[:] = serialized
    return array


def _run(
    model: Runtime, signature: Any, examples: Array, aliases: Sequence[str], deadline: float | None
) -> list[Array]:
    fetches = [signature.outputs[alias].name for alias in aliases]
    return model.run({signature.inputs[INPUTS].name: examples}, fetches, deadline)


def _fill_classes(arrays: dict[str, Array], count: int, result: Any) -> None:
    classes, scores = arrays.get(CLASSES), arrays.get(SCORES)
    for array, what in ((classes, "classes"), (scores, "scores")):
        if array is None:
            continue
        if array.ndim != 2:
            raise invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got {list(array.shape)}")
        if len(array) != count:
            raise invalid_argument(f"Expected {what} output batch size of {count} but got {len(array)}")
    if classes is not None and classes.dtype.kind not in "OSU":
        raise invalid_argument("Expected classes Tensor of DT_STRING.")
    if scores is not None and scores.dtype != np.float32:
        raise invalid_argument("Expected scores Tensor of DT_FLOAT.")
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise invalid_argument(
            f"Tensors class and score should match in shape. Got {list(classes.shape)} vs. {list(scores.shape)}"
        )
    for row in range(count):
        classification = result.classifications.add()
        for column in range((classes if classes is not None else arrays[SCORES]).shape[1]):
            one = classification.classes.add()
            if classes is not None:
                one.label = classes[row, column]
            if scores is not None:
                one.score = scores[row, column]


def _fill_values(values: Array, count: int, result: Any) -> None:
    if values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[1] != 1):
        raise invalid_argument(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {list(values.shape)}"
        )
    if len(values) != count:
        raise invalid_argument(f"Input batch size did not match output batch size: {count} vs. {len(values)}")
    if values.dtype != np.float32:
        raise invalid_argument("Expected output Tensor of DT_FLOAT.")
    for value in values.reshape(-1).tolist():
        result.regressions.add(value=value)
