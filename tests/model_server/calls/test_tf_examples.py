"""Classify, Regress and MultiInference with the official messages: section 9 of the facts."""

from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, inference_pb2, input_pb2, regression_pb2

from tests.model_server.server_process import ModelServer

pytestmark = pytest.mark.integration

Refused = Callable[..., tuple[str, str]]


def example(**features: float) -> Any:
    message = tf.train.Example()
    for name, value in features.items():
        message.features.feature[name].float_list.value.append(value)
    return message


def input_of(*values: float) -> Any:
    return input_pb2.Input(example_list=input_pb2.ExampleList(examples=[example(x=value) for value in values]))


def classify_request(signature: str = "classify_x_to_y", **parts: Any) -> Any:
    request = classification_pb2.ClassificationRequest(**parts)
    request.model_spec.name, request.model_spec.signature_name = "half_plus_two", signature
    return request


def regress_request(signature: str = "regress_x_to_y", **parts: Any) -> Any:
    request = regression_pb2.RegressionRequest(**parts)
    request.model_spec.name, request.model_spec.signature_name = "half_plus_two", signature
    return request


def task(signature: str, method: str, model: str = "half_plus_two") -> Any:
    message = inference_pb2.InferenceTask(method_name=f"tensorflow/serving/{method}")
    message.model_spec.name, message.model_spec.signature_name = model, signature
    return message


def test_classify_gives_labels_and_scores(server: ModelServer) -> None:
    response = server.prediction.Classify(classify_request(input=input_of(2, 4)))
    rows = [[(c.label, c.score) for c in row.classes] for row in response.result.classifications]
    assert rows == [[("3", 3.0)], [("4", 4.0)]]
    assert (response.model_spec.version.value, response.model_spec.signature_name) == (123, "classify_x_to_y")


def test_regress_gives_values(server: ModelServer) -> None:
    response = server.prediction.Regress(regress_request(input=input_of(2, 4)))
    assert [row.value for row in response.result.regressions] == [3.0, 4.0]
    assert response.model_spec.signature_name == "regress_x_to_y"


def test_a_context_is_shared_and_gives_way(server: ModelServer) -> None:
    listed = input_pb2.ExampleListWithContext(context=example(x=6.0), examples=[example(), example(x=2.0)])
    request = regress_request(input=input_pb2.Input(example_list_with_context=listed))
    assert [row.value for row in server.prediction.Regress(request).result.regressions] == [5.0, 3.0]


def test_multi_inference_runs_several_signatures_at_once(server: ModelServer) -> None:
    tasks = [task("classify_x_to_y", "classify"), task("regress_x_to_y", "regress")]
    response = server.prediction.MultiInference(inference_pb2.MultiInferenceRequest(tasks=tasks, input=input_of(2)))
    first, second = response.results
    assert first.classification_result.classifications[0].classes[0].label == "3"
    assert second.regression_result.regressions[0].value == 3.0
    assert [r.model_spec.version.value for r in response.results] == [123, 123]
    assert second.model_spec.signature_name == "regress_x_to_y"


def test_an_unknown_signature_has_a_text_of_its_own(server: ModelServer, refused: Refused) -> None:
    expected = ("INVALID_ARGUMENT", "No signature was found with the name: nope")
    assert refused(server.prediction.Classify, classify_request("nope", input=input_of(1))) == expected
    assert refused(server.prediction.Regress, regress_request("nope", input=input_of(1))) == expected


def test_an_empty_input_is_refused(server: ModelServer, refused: Refused) -> None:
    expected = ("INVALID_ARGUMENT", "Input is empty.")
    assert refused(server.prediction.Classify, classify_request()) == expected
    assert refused(server.prediction.Regress, regress_request(input=input_of())) == expected


def test_a_signature_for_predict_cannot_classify(server: ModelServer, refused: Refused) -> None:
    request = classify_request("", input=input_of(1))
    request.model_spec.name = "two_inputs"
    assert refused(server.prediction.Classify, request) == ("INVALID_ARGUMENT", "Expected one input Tensor.")


def test_missing_specs_models_and_tasks_are_refused(server: ModelServer, refused: Refused) -> None:
    missing = ("INVALID_ARGUMENT", "Missing ModelSpec")
    assert refused(server.prediction.Classify, classification_pb2.ClassificationRequest()) == missing
    assert refused(server.prediction.Regress, regression_pb2.RegressionRequest()) == missing
    assert refused(server.prediction.MultiInference, inference_pb2.MultiInferenceRequest())[0] == "INVALID_ARGUMENT"
    request = regress_request(input=input_of(1))
    request.model_spec.name = "nope"
    unknown = ("NOT_FOUND", "Servable not found for request: Latest(nope)")
    assert refused(server.prediction.Regress, request) == unknown


def test_tasks_of_one_call_share_the_model_and_differ_in_signature(server: ModelServer, refused: Refused) -> None:
    twice = [task("regress_x_to_y", "regress")] * 2
    request = inference_pb2.MultiInferenceRequest(tasks=twice, input=input_of(1))
    assert refused(server.prediction.MultiInference, request) == (
        "INVALID_ARGUMENT",
        "Duplicate evaluation of signature: regress_x_to_y",
    )
    mixed = [task("regress_x_to_y", "regress"), task("classify_x_to_y", "classify", "dense")]
    request = inference_pb2.MultiInferenceRequest(tasks=mixed, input=input_of(1))
    assert refused(server.prediction.MultiInference, request)[0] == "INVALID_ARGUMENT"


def test_an_example_that_the_graph_cannot_parse_is_its_error(server: ModelServer, refused: Refused) -> None:
    request = regress_request(input=input_pb2.Input(example_list=input_pb2.ExampleList(examples=[example()])))
    assert refused(server.prediction.Regress, request)[0] == "INVALID_ARGUMENT"
