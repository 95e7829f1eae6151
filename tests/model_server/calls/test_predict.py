"""Predict, GetModelMetadata and GetModelStatus as the official client sees them: section 2, 3 and 4 of the facts."""

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.any_pb2 import Any as AnyMessage
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from serving.backend.protos import wire_pb2 as wire
from tests.model_server.server_process import ModelServer

pytestmark = pytest.mark.integration

Refused = Callable[..., tuple[str, str]]
FLOATS = np.array([[1.0], [2.0], [5.0]], np.float32)


def test_answer_is_computed_and_lies_in_the_typed_field(server: ModelServer) -> None:
    output = server.predict("half_plus_two", {"x": FLOATS}).outputs["y"]
    assert list(output.float_val) == [2.5, 3.0, 4.5]
    assert output.tensor_content == b""
    assert [dim.size for dim in output.tensor_shape.dim] == [3, 1]


def test_version_and_signature_are_echoed_resolved(server: ModelServer) -> None:
    spec = server.predict("half_plus_two", {"x": FLOATS}).model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("half_plus_two", 123, "serving_default")
    assert spec.WhichOneof("version_choice") == "version"


def test_tensor_content_and_typed_values_are_both_accepted(server: ModelServer) -> None:
    for tensor in (tf.make_tensor_proto(FLOATS), tf.make_tensor_proto(5.0, shape=[3, 1])):
        assert len(server.predict("half_plus_two", {"x": tensor}).outputs["y"].float_val) == 3


def test_shapes_are_not_checked_against_the_signature(server: ModelServer) -> None:
    for shape in ((), (1,), (2, 3)):
        output = server.predict("half_plus_two", {"x": np.zeros(shape, np.float32)}).outputs["y"]
        assert tuple(dim.size for dim in output.tensor_shape.dim) == shape


def test_a_batch_of_no_rows_gives_no_rows(server: ModelServer) -> None:
    output = server.predict("half_plus_two", {"x": np.zeros((0, 1), np.float32)}).outputs["y"]
    assert [dim.size for dim in output.tensor_shape.dim] == [0, 1]


@pytest.mark.parametrize(
    ("model", "spec", "code", "message"),
    [
        ("", {}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        ("nope", {}, "NOT_FOUND", "Servable not found for request: Latest(nope)"),
        ("dense", {"version": 7}, "NOT_FOUND", "Servable not found for request: Specific(dense, 7)"),
        ("dense", {"version_label": "canary"}, "INVALID_ARGUMENT", "Unrecognized servable version label: canary"),
        ("dense", {"signature": "foo"}, "FAILED_PRECONDITION", 'Serving signature key "foo" not found.'),
        (
            "dense",
            {"output_filter": ["q"]},
            "INVALID_ARGUMENT",
            "output tensor alias not found in signature: q Outputs expected to be in the set {y}.",
        ),
        ("dense", {"output_filter": ["y", "y"]}, "INVALID_ARGUMENT", "duplicate output tensor alias: y"),
    ],
)
def test_what_is_not_there_is_refused_in_the_same_words(
    server: ModelServer, refused: Refused, *, model: str, spec: dict[str, Any], code: str, message: str
) -> None:
    assert refused(server.predict, model, {"x": FLOATS}, **spec) == (code, message)


def test_a_request_without_a_spec_is_refused(server: ModelServer, refused: Refused) -> None:
    missing = ("INVALID_ARGUMENT", "Missing ModelSpec")
    assert refused(server.prediction.Predict, predict_pb2.PredictRequest()) == missing
    assert refused(server.models.GetModelStatus, get_model_status_pb2.GetModelStatusRequest()) == missing
    assert refused(server.prediction.GetModelMetadata, get_model_metadata_pb2.GetModelMetadataRequest()) == missing


def test_wrong_inputs_are_named(server: ModelServer, refused: Refused) -> None:
    def message(model: str, *names: str) -> str:
        code, text = refused(server.predict, model, {name: np.zeros(1, np.float32) for name in names})
        assert code == "INVALID_ARGUMENT"
        return text

    assert message("half_plus_two", "x", "z") == (
        "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}. Missing but required: {}."
    )
    assert message("two_inputs", "a") == (
        "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. Missing but required: {b}."
    )
    assert message("half_plus_two", "z") == (
        "Signature input alias: x(feed name: x:0) not found in request and no default value provided. "
        "Inputs expected to be in the request {z}, or default input alias set: "
    )


def test_a_tensor_that_does_not_parse_is_named(server: ModelServer, refused: Refused) -> None:
    broken = tf.make_tensor_proto(FLOATS)
    broken.tensor_content = b"abc"
    assert refused(server.predict, "half_plus_two", {"x": broken}) == ("INVALID_ARGUMENT", "tensor parsing error: x")
    untyped = tf.make_tensor_proto(FLOATS)
    untyped.dtype = 0
    assert refused(server.predict, "half_plus_two", {"x": untyped}) == ("INVALID_ARGUMENT", "tensor parsing error: x")


def test_a_wrong_type_is_named_by_index(server: ModelServer, refused: Refused) -> None:
    for array, name in ((FLOATS.astype(np.float64), "double"), (np.array([b"a"], object), "string")):
        expected = ("INVALID_ARGUMENT", f"Expects arg[0] to be float but {name} is provided")
        assert refused(server.predict, "half_plus_two", {"x": array}) == expected


def test_a_shape_that_the_operations_refuse_is_their_error(server: ModelServer, refused: Refused) -> None:
    code, message = refused(server.predict, "dense", {"x": np.zeros((2, 5), np.float32)})
    assert code == "INVALID_ARGUMENT"
    assert "Matrix size-incompatible: In[0]: [2,5], In[1]: [4,3]" in message
    assert "[[{{node" in message


def test_a_picture_of_another_rank_does_not_end_the_process(server: ModelServer, refused: Refused) -> None:
    code, _ = refused(server.predict, "picture", {"image": np.zeros((1, 8), np.uint8)})
    assert code == "INVALID_ARGUMENT"
    assert server.predict("picture", {"image": np.zeros((1, 8, 8, 1), np.uint8)}).outputs["probabilities"].float_val


def test_output_filter_chooses_the_outputs(server: ModelServer) -> None:
    numbers = np.array([3, 4], np.int32)
    response = server.predict("two_inputs", {"a": numbers, "b": numbers}, output_filter=["sum"])
    assert {alias: list(tensor.int_val) for alias, tensor in response.outputs.items()} == {"sum": [6, 8]}


def test_a_long_message_is_cut(server: ModelServer, refused: Refused) -> None:
    _, message = refused(server.predict, "half_plus_two", {"x": FLOATS}, signature="s" * 3000)
    assert len(message) == 1024 + len("...TRUNCATED")
    assert message.endswith("...TRUNCATED")


def test_messages_over_the_usual_limit_pass_both_ways(server: ModelServer) -> None:
    large = np.ones((3_000_000,), np.float32)
    assert len(server.predict("half_plus_two", {"x": large}).outputs["y"].float_val) == large.size


def test_a_deadline_ends_a_run(server: ModelServer, refused: Refused) -> None:
    code, _ = refused(server.predict, "slow", {"n": np.array(2_000_000_000, np.int32)}, timeout=0.3)
    assert code == "DEADLINE_EXCEEDED"


def test_metadata_holds_every_signature(server: ModelServer) -> None:
    response = server.metadata("half_plus_two", "signature_def")
    assert (response.model_spec.version.value, response.model_spec.signature_name) == (123, "")
    signatures = get_model_metadata_pb2.SignatureDefMap()
    packed: AnyMessage = response.metadata["signature_def"]
    assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    assert packed.Unpack(signatures)
    names = {"serving_default", "regress_x_to_y", "classify_x_to_y", "x2"}
    assert set(signatures.signature_def) == names


def test_metadata_fields_are_checked(server: ModelServer, refused: Refused) -> None:
    empty = "GetModelMetadataRequest must specify at least one metadata_field"
    assert refused(server.metadata, "half_plus_two") == ("INVALID_ARGUMENT", empty)
    unknown = "Metadata field foo is not supported"
    assert refused(server.metadata, "half_plus_two", "foo") == ("INVALID_ARGUMENT", unknown)
    missing = "Servable not found for request: Latest(nope)"
    assert refused(server.metadata, "nope", "signature_def") == ("NOT_FOUND", missing)


def test_status_lists_versions_and_refuses_unknown_ones(server: ModelServer, refused: Refused) -> None:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "half_plus_two"
    (row,) = server.models.GetModelStatus(request).model_version_status
    assert (row.version, row.state, row.status.error_code, row.status.error_message) == (123, 30, 0, "")
    request.model_spec.version.value = 7
    expected = ("NOT_FOUND", "Could not find version 7 of model half_plus_two")
    assert refused(server.models.GetModelStatus, request) == expected
    request.model_spec.name = "nope"
    request.model_spec.ClearField("version_choice")
    assert refused(server.models.GetModelStatus, request)[1] == "Could not find any versions of model nope"


def test_status_ignores_labels(server: ModelServer) -> None:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "half_plus_two"
    request.model_spec.version_label = "whatever"
    assert len(server.models.GetModelStatus(request).model_version_status) == 1


def test_our_extension_lists_the_models(server: ModelServer, models_dir: Any) -> None:
    call = server.channel.unary_unary(
        "/sightline.wire.ModelRepository/ListModels",
        wire.ListModelsRequest.SerializeToString,
        wire.ListModelsResponse.FromString,
    )
    assert list(call(wire.ListModelsRequest()).name) == sorted(path.name for path in models_dir.iterdir())


def test_an_unknown_method_is_unimplemented(server: ModelServer) -> None:
    call = server.channel.unary_unary("/tensorflow.serving.PredictionService/Nope")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_scalar_string_is_answered(server: ModelServer) -> None:
    answer = server.predict("echo", {"x": np.array(b"a\0", object)}, signature="string").outputs["y"]
    assert list(answer.string_val) == [b"a\0"]
    assert not answer.tensor_shape.dim


def test_a_small_message_does_not_unpack_to_a_large_tensor(server: ModelServer, refused: Refused) -> None:
    image = tf.make_tensor_proto(1, tf.uint8, shape=[1])
    image.tensor_shape.CopyFrom(tf.TensorShape([2_000_000, 8, 8, 1]).as_proto())
    assert refused(server.predict, "picture", {"image": image}) == (
        "INVALID_ARGUMENT",
        "tensor image repeats a value for 127999999 bytes; the limit is 4194304 (--max_repeated_tensor_bytes). "
        "Send every value.",
    )
    image.tensor_shape.dim[0].size = 128
    assert len(server.predict("picture", {"image": image}).outputs["probabilities"].float_val) == 256
    many = tf.make_tensor_proto(1.0, shape=[1])
    many.tensor_shape.CopyFrom(tf.TensorShape([2**62, 2**62]).as_proto())
    assert refused(server.predict, "half_plus_two", {"x": many})[0] == "INVALID_ARGUMENT"
