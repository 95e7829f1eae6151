import numpy as np
import pytest

from serving.backend.protos import wire_pb2 as wire
from serving.backend.tensors import from_proto, to_proto


def shape(*sides: int) -> wire.TensorShapeProto:
    return wire.TensorShapeProto(dim=[wire.TensorShapeProto.Dim(size=side) for side in sides])


def test_loose_values_are_read() -> None:
    tensor = wire.TensorProto(dtype=wire.DT_FLOAT, tensor_shape=shape(2, 2), float_val=[1, 2, 3, 4])
    assert from_proto(tensor).tolist() == [[1, 2], [3, 4]]


def test_the_last_loose_value_stands_for_the_rest() -> None:
    tensor = wire.TensorProto(dtype=wire.DT_INT32, tensor_shape=shape(4), int_val=[5, 6])
    assert from_proto(tensor).tolist() == [5, 6, 6, 6]


def test_no_values_are_zeros() -> None:
    assert from_proto(wire.TensorProto(dtype=wire.DT_INT64, tensor_shape=shape(2))).tolist() == [0, 0]


def test_strings_are_bytes() -> None:
    tensor = wire.TensorProto(dtype=wire.DT_STRING, tensor_shape=shape(1), string_val=[b"\xff{}"])
    assert from_proto(tensor).tolist() == [b"\xff{}"]


def test_contents_that_do_not_fit_the_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="reshape"):
        from_proto(wire.TensorProto(dtype=wire.DT_FLOAT, tensor_shape=shape(3), tensor_content=bytes(8)))
    with pytest.raises(ValueError, match="2 strings"):
        from_proto(wire.TensorProto(dtype=wire.DT_STRING, tensor_shape=shape(1), string_val=[b"a", b"b"]))


def test_types_that_no_card_has_are_refused() -> None:
    with pytest.raises(ValueError, match="DT_HALF"):
        from_proto(wire.TensorProto(dtype=wire.DT_HALF, tensor_shape=shape(1), half_val=[0]))
    with pytest.raises(TypeError, match="float16"):
        to_proto(np.zeros(1, np.float16))
