"""Our messages against the official ones, byte for byte, both ways."""

from typing import Any

import pytest
from google.protobuf.message import Message

from serving.backend.protos import wire_pb2 as wire

pytest.importorskip("tensorflow", reason="the extra `tensorflow` is not installed")
apis: Any = pytest.importorskip("tensorflow_serving.apis", reason="the extra `tensorflow` is not installed")

pytestmark = pytest.mark.integration


def official() -> dict[str, Any]:
    from tensorflow.core.example import example_pb2, feature_pb2
    from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
    from tensorflow.core.protobuf import meta_graph_pb2
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        input_pb2,
        model_pb2,
        predict_pb2,
        regression_pb2,
        status_pb2,
    )

    examples = (
        (feature_pb2, ("BytesList", "FloatList", "Int64List", "Feature", "Features")),
        (example_pb2, ("Example",)),
        (input_pb2, ("ExampleList", "ExampleListWithContext", "Input")),
        (classification_pb2, ("Class", "Classifications", "ClassificationResult")),
        (classification_pb2, ("ClassificationRequest", "ClassificationResponse")),
        (regression_pb2, ("Regression", "RegressionResult", "RegressionRequest", "RegressionResponse")),
    )
    return {
        **{name: getattr(module, name) for module, names in examples for name in names},
        "TensorShapeProto": tensor_shape_pb2.TensorShapeProto,
        "TensorProto": tensor_pb2.TensorProto,
        "ModelSpec": model_pb2.ModelSpec,
        "PredictRequest": predict_pb2.PredictRequest,
        "PredictResponse": predict_pb2.PredictResponse,
        "TensorInfo": meta_graph_pb2.TensorInfo,
        "SignatureDef": meta_graph_pb2.SignatureDef,
        "SignatureDefMap": get_model_metadata_pb2.SignatureDefMap,
        "GetModelMetadataRequest": get_model_metadata_pb2.GetModelMetadataRequest,
        "GetModelMetadataResponse": get_model_metadata_pb2.GetModelMetadataResponse,
        "StatusProto": status_pb2.StatusProto,
        "GetModelStatusRequest": get_model_status_pb2.GetModelStatusRequest,
        "ModelVersionStatus": get_model_status_pb2.ModelVersionStatus,
        "GetModelStatusResponse": get_model_status_pb2.GetModelStatusResponse,
    }


NAMES = (
    "BytesList",
    "Class",
    "ClassificationRequest",
    "ClassificationResponse",
    "ClassificationResult",
    "Classifications",
    "Example",
    "ExampleList",
    "ExampleListWithContext",
    "Feature",
    "Features",
    "FloatList",
    "GetModelMetadataRequest",
    "GetModelMetadataResponse",
    "GetModelStatusRequest",
    "GetModelStatusResponse",
    "Input",
    "Int64List",
    "ModelSpec",
    "ModelVersionStatus",
    "PredictRequest",
    "PredictResponse",
    "Regression",
    "RegressionRequest",
    "RegressionResponse",
    "RegressionResult",
    "SignatureDef",
    "SignatureDefMap",
    "StatusProto",
    "TensorInfo",
    "TensorProto",
    "TensorShapeProto",
)
OURS_ALONE = {"LoadedVersion", "Readiness", "ListModelsRequest", "ListModelsResponse"}


def filled(message: Message, depth: int = 0) -> Message:
    """The message with every field set: an unset field would prove nothing."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            value = getattr(message, field.name)
            kind = field.message_type.fields_by_name["value"].message_type
            if kind is not None and depth < 4:
                filled(value["key"], depth + 1)
        elif field.message_type is not None:
            if depth < 4:
                target = getattr(message, field.name)
                filled(target.add() if field.is_repeated else target, depth + 1)
        elif field.containing_oneof is None or field.index == field.containing_oneof.fields[-1].index:
            set_scalar(message, field)
    return message


def set_scalar(message: Message, field: Any) -> None:
    number = field.number + 40
    value: Any = {
        field.CPPTYPE_STRING: b"x" if field.type == field.TYPE_BYTES else "x",
        field.CPPTYPE_BOOL: True,
        field.CPPTYPE_FLOAT: 0.5,
        field.CPPTYPE_DOUBLE: 0.5,
        field.CPPTYPE_ENUM: field.enum_type.values[-1].number if field.enum_type else 0,
    }.get(field.cpp_type, number)
    if field.is_repeated:
        getattr(message, field.name).extend([value, value])
    else:
        setattr(message, field.name, value)


@pytest.mark.parametrize("name", NAMES)
def test_what_we_write_the_official_package_reads_and_writes_the_same(name: str) -> None:
    ours = filled(getattr(wire, name)())
    data = ours.SerializeToString(deterministic=True)
    theirs = official()[name].FromString(data)
    assert data
    assert theirs.SerializeToString(deterministic=True) == data


@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_ours_has_the_official_name_and_number(name: str) -> None:
    theirs = {field.name: field for field in official()[name].DESCRIPTOR.fields}
    for field in getattr(wire, name).DESCRIPTOR.fields:
        assert (theirs[field.name].number, theirs[field.name].type) == (field.number, field.type), field.name


@pytest.mark.parametrize("name", NAMES)
def test_what_the_official_package_writes_we_read(name: str) -> None:
    ours = filled(getattr(wire, name)())
    theirs = official()[name].FromString(ours.SerializeToString())
    assert getattr(wire, name).FromString(theirs.SerializeToString()) == ours


def test_every_message_is_held_against_the_official_one() -> None:
    assert set(NAMES) | OURS_ALONE == set(wire.DESCRIPTOR.message_types_by_name)


def test_data_types_have_the_official_numbers() -> None:
    from tensorflow.core.framework import types_pb2

    for value in wire.DESCRIPTOR.enum_types_by_name["DataType"].values:
        assert types_pb2.DataType.Value(value.name) == value.number
