"""numpy arrays to TensorFlow's TensorProto and back."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.backend.protos import wire_pb2 as wire

Array = npt.NDArray[Any]

# The types that a card or its probe may have. Value: dtype on the wire, and the field that holds loose values.
WIRE_TYPES: dict[np.dtype[Any], tuple[wire.DataType, str]] = {
    np.dtype(np.float32): (wire.DT_FLOAT, "float_val"),
    np.dtype(np.float64): (wire.DT_DOUBLE, "double_val"),
    np.dtype(np.uint8): (wire.DT_UINT8, "int_val"),
    np.dtype(np.int32): (wire.DT_INT32, "int_val"),
    np.dtype(np.int64): (wire.DT_INT64, "int64_val"),
}
NUMPY_TYPES: dict[int, tuple[np.dtype[Any], str]] = {
    code: (dtype, field) for dtype, (code, field) in WIRE_TYPES.items()
}


def to_proto(array: Array) -> wire.TensorProto:
    """An array as a message; its numbers travel as bytes. Raises TypeError for a type that is not in WIRE_TYPES."""
    if array.dtype not in WIRE_TYPES:
        raise TypeError(f"no wire type for {array.dtype}; known are {', '.join(map(str, WIRE_TYPES))}")
    shape = wire.TensorShapeProto(dim=[wire.TensorShapeProto.Dim(size=side) for side in array.shape])
    little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return wire.TensorProto(
        dtype=WIRE_TYPES[array.dtype][0], tensor_shape=shape, tensor_content=little_endian.tobytes()
    )


def from_proto(tensor: wire.TensorProto) -> Array:
    """A message as an array; DT_STRING becomes an array of bytes objects.

    Both encodings are read: bytes (`tensor_content`) and loose values (`float_val`, ...), of which TensorFlow lets the
    last one stand for all that follow it. Raises ValueError where shape, type and contents do not agree.
    """
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    count = math.prod(shape)
    if tensor.dtype == wire.DT_STRING:
        if len(tensor.string_val) != count:
            raise ValueError(f"{len(tensor.string_val)} strings for a tensor of shape {shape}")
        return np.array(list(tensor.string_val), dtype=object).reshape(shape)
    if tensor.dtype not in NUMPY_TYPES:
        raise ValueError(f"tensor type {wire.DataType.Name(tensor.dtype)} is not supported")
    dtype, field = NUMPY_TYPES[tensor.dtype]
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)
    values = np.array(getattr(tensor, field), dtype=dtype)
    if 0 < values.size < count:
        values = np.concatenate([values, np.full(count - values.size, values[-1])])
    return values.reshape(shape) if values.size else np.zeros(shape, dtype)
