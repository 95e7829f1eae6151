"""Tensors cross as TensorFlow's C++ reads and writes them."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2, types_pb2

from serving.backend.protos import wire_pb2 as wire
from serving.runtimes.tensors import NUMPY_TYPES, to_content_proto, to_numpy, to_proto

pytestmark = pytest.mark.integration

NUMERIC = [code for code in NUMPY_TYPES if code != types_pb2.DT_STRING]


def sample(code: int, shape: tuple[int, ...]) -> np.ndarray:
    values = np.arange(int(np.prod(shape))) % 100
    return values.astype(NUMPY_TYPES[code]).reshape(shape)


@pytest.mark.parametrize("code", NUMERIC)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (70, 2), (2, 0, 3)])
def test_every_type_crosses_in_both_forms(code: int, shape: tuple[int, ...]) -> None:
    array = sample(code, shape)
    for write, kind in itertools.product((to_proto, to_content_proto), (tensor_pb2.TensorProto, wire.TensorProto)):
        proto = kind()
        write(array, proto)
        assert np.array_equal(to_numpy(proto), array)
        official = tensor_pb2.TensorProto.FromString(proto.SerializeToString())
        assert np.array_equal(tf.make_ndarray(official), array)
        parsed = tf.io.parse_tensor(proto.SerializeToString(), tf.dtypes.as_dtype(code))
        assert np.array_equal(parsed.numpy(), array)


def test_typed_fields_hold_the_numbers() -> None:
    proto = tensor_pb2.TensorProto()
    to_proto(np.array([[1.5, 2.5]], np.float32), proto)
    assert list(proto.float_val) == [1.5, 2.5]
    assert proto.tensor_content == b""
    assert proto.dtype == types_pb2.DT_FLOAT


def test_strings_cross_as_bytes() -> None:
    proto = tensor_pb2.TensorProto()
    to_proto(np.array([[b"a", b"\xff"]], object), proto)
    assert list(proto.string_val) == [b"a", b"\xff"]
    assert to_numpy(proto).tolist() == [[b"a", b"\xff"]]


def test_packed_strings_are_read() -> None:
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, tensor_content=b"\x01\x03abcd")
    proto.tensor_shape.dim.add(size=2)
    assert to_numpy(proto).tolist() == [b"a", b"bcd"]
    proto.tensor_content = b"\x01\x04abcd"
    with pytest.raises(ValueError, match="strings"):
        to_numpy(proto)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(width=32, allow_nan=False), max_size=200), st.integers(0, 200))
def test_too_many_values_are_dropped_and_too_few_repeat_the_last(values: list[float], size: int) -> None:
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=values)
    proto.tensor_shape.dim.add(size=size)
    ours = to_numpy(proto)
    assert np.array_equal(ours, tf.io.parse_tensor(proto.SerializeToString(), tf.float32).numpy())


def test_what_cpp_refuses_is_refused() -> None:
    proto = tf.make_tensor_proto(np.zeros(3, np.float32))
    proto.tensor_content = b"abc"
    with pytest.raises(ValueError, match="3 bytes for 3 values"):
        to_numpy(proto)
    unknown = tf.make_tensor_proto(1.0)
    unknown.tensor_shape.unknown_rank = True
    with pytest.raises(ValueError, match="shape"):
        to_numpy(unknown)
    with pytest.raises(ValueError, match="type"):
        to_numpy(tensor_pb2.TensorProto())


def test_a_type_that_tensorflow_does_not_have_is_refused() -> None:
    for write in (to_proto, to_content_proto):
        with pytest.raises(TypeError, match="no type for datetime64"):
            write(np.zeros(1, "datetime64[s]"), tensor_pb2.TensorProto())


def test_a_process_without_ml_dtypes_reads_all_but_bfloat16() -> None:
    code = (
        "import sys; sys.modules['ml_dtypes'] = None\n"
        "from serving.contract.dtypes import DTYPES; from serving.runtimes.tensors import NUMPY_TYPES\n"
        "print([dtype.name for dtype in DTYPES if dtype.code not in NUMPY_TYPES])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['bfloat16']"
