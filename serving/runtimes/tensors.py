"""TensorProto to numpy and back, as TensorFlow's C++ does it.

`tf.make_ndarray` and `tf.make_tensor_proto` differ from C++ in ways that clients notice: the first refuses a list with
too many values, of which C++ keeps the first ones; the second packs its numbers into `tensor_content`, where TensorFlow
Serving fills the typed field that clients read (`outputs["y"].float_val`).
Source: tensorflow/core/framework/tensor.cc, Tensor::FromProto and Tensor::AsProtoField.
"""

import math
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from serving.runtimes.messages import types_pb2

Array = npt.NDArray[Any]

_BITS, _PAIRS = "bits", "pairs"  # half_val holds 16-bit patterns; scomplex_val holds real, imaginary, real, ...
# dtype on the wire: field of loose values, how they lie in it, and the array's type
_TYPES: dict[int, tuple[str, str, Any]] = {
    types_pb2.DT_FLOAT: ("float_val", "", "float32"),
    types_pb2.DT_DOUBLE: ("double_val", "", "float64"),
    types_pb2.DT_INT32: ("int_val", "", "int32"),
    types_pb2.DT_UINT8: ("int_val", "", "uint8"),
    types_pb2.DT_INT16: ("int_val", "", "int16"),
    types_pb2.DT_INT8: ("int_val", "", "int8"),
    types_pb2.DT_UINT16: ("int_val", "", "uint16"),
    types_pb2.DT_STRING: ("string_val", "", "object"),
    types_pb2.DT_COMPLEX64: ("scomplex_val", _PAIRS, "complex64"),
    types_pb2.DT_INT64: ("int64_val", "", "int64"),
    types_pb2.DT_BOOL: ("bool_val", "", "bool"),
    types_pb2.DT_COMPLEX128: ("dcomplex_val", _PAIRS, "complex128"),
    types_pb2.DT_HALF: ("half_val", _BITS, "float16"),
    types_pb2.DT_BFLOAT16: ("half_val", _BITS, ml_dtypes.bfloat16),
    types_pb2.DT_UINT32: ("uint32_val", "", "uint32"),
    types_pb2.DT_UINT64: ("uint64_val", "", "uint64"),
}
FIELDS = {code: (field, layout) for code, (field, layout, _) in _TYPES.items()}
NUMPY_TYPES: dict[int, np.dtype[Any]] = {code: np.dtype(dtype) for code, (_, _, dtype) in _TYPES.items()}
WIRE_TYPES = {dtype: code for code, dtype in NUMPY_TYPES.items()}
# The packed form of these fields on the wire is the array's own bytes: field number << 3 | 2, a length, the bytes.
_PACKED_TAGS = {"float_val": b"\x2a", "double_val": b"\x32"}


def to_numpy(tensor: Any) -> Array:
    """A TensorProto as an array; strings become bytes in an object array. The array may be read-only.

    Loose values: too many are dropped, too few are filled up with the last, none at all are zeros.
    Raises ValueError where C++ refuses the tensor: an unknown type, an unknown shape, contents of another length.
    """
    if tensor.dtype not in FIELDS:
        raise ValueError(f"type {tensor.dtype} cannot be read")
    shape = _shape(tensor.tensor_shape)
    count = math.prod(shape)
    if tensor.tensor_content and count:
        return _from_content(tensor.tensor_content, tensor.dtype, count).reshape(shape)
    return _from_values(tensor, count).reshape(shape)


def to_proto(array: Array, into: Any) -> None:
    """Write an array into an empty TensorProto: shape, type and the typed field."""
    code = types_pb2.DT_STRING if array.dtype.kind in "OSU" else WIRE_TYPES[array.dtype]
    field, layout = FIELDS[code]
    if field in _PACKED_TAGS and array.size:
        into.MergeFromString(_PACKED_TAGS[field] + _varint(array.nbytes) + np.ascontiguousarray(array).tobytes())
    else:
        getattr(into, field).extend(_loose(array, layout))
    into.dtype = code
    for side in array.shape:
        into.tensor_shape.dim.add().size = side


def to_content_proto(array: Array, into: Any) -> None:
    """Write an array into an empty TensorProto as bytes; strings have no such form and keep theirs."""
    if array.dtype.kind in "OSU":
        to_proto(array, into)
        return
    into.dtype = WIRE_TYPES[array.dtype]
    into.tensor_content = np.ascontiguousarray(array).tobytes()
    for side in array.shape:
        into.tensor_shape.dim.add().size = side


def dtype_name(code: int) -> str:
    """A type as TensorFlow prints it: float, uint8, string."""
    name: str = types_pb2.DataType.Name(code)
    return name.removeprefix("DT_").lower()


def _shape(proto: Any) -> tuple[int, ...]:
    shape = tuple(dim.size for dim in proto.dim)
    if proto.unknown_rank or any(side < 0 for side in shape):
        raise ValueError("the shape is not fully known")
    return shape


def _from_content(content: bytes, code: int, count: int) -> Array:
    if code == types_pb2.DT_STRING:
        return _strings(content, count)
    dtype = NUMPY_TYPES[code]
    if len(content) != count * dtype.itemsize:
        raise ValueError(f"{len(content)} bytes for {count} values of {dtype}")
    return np.frombuffer(content, dtype)


def _strings(content: bytes, count: int) -> Array:
    """`count` lengths as varints, then the strings: port::DecodeStringList."""
    lengths, at = [], 0
    for _ in range(count):
        length, at = _read_varint(content, at)
        lengths.append(length)
    if at + sum(lengths) != len(content):
        raise ValueError("the strings do not fill the contents")
    array = np.empty(count, dtype=object)
    for i, length in enumerate(lengths):
        array[i] = content[at : at + length]
        at += length
    return array


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(content):
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("the contents end inside a length")


def _from_values(tensor: Any, count: int) -> Array:
    field, layout = FIELDS[tensor.dtype]
    dtype = NUMPY_TYPES[tensor.dtype]
    loose = getattr(tensor, field)
    if tensor.dtype == types_pb2.DT_STRING:
        return _fill(_objects(loose[:count]), count, b"")
    if field in _PACKED_TAGS and len(loose) > 64:
        values = _unpack(type(tensor), field, loose, dtype)
    elif layout == _PAIRS:
        parts = np.array(loose, dtype=np.float64).reshape(-1, 2)
        values = (parts[:, 0] + 1j * parts[:, 1]).astype(dtype)
    elif layout == _BITS:
        values = np.array(loose, dtype=np.int64).astype(np.uint16).view(dtype)
    else:
        values = np.array(loose, dtype=np.int64 if field == "int_val" else dtype).astype(dtype)
    return _fill(values[:count], count, 0)


def _unpack(kind: Any, field: str, loose: Any, dtype: np.dtype[Any]) -> Array:
    """A long list of floats without a Python object for each: serialise that field alone and read its bytes."""
    alone = kind()
    getattr(alone, field).MergeFrom(loose)
    return np.frombuffer(alone.SerializeToString()[-len(loose) * dtype.itemsize :], dtype)


def _fill(values: Array, count: int, nothing: Any) -> Array:
    if len(values) == count:
        return values
    filled = np.empty(count, dtype=values.dtype)
    filled[: len(values)] = values
    filled[len(values) :] = values[-1] if len(values) else nothing
    return filled


def _objects(items: Any) -> Array:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def _loose(array: Array, layout: str) -> Any:
    if layout == _PAIRS:
        return np.ascontiguousarray(array).reshape(-1).view(array.real.dtype).tolist()
    if layout == _BITS:
        return np.ascontiguousarray(array).reshape(-1).view(np.uint16).tolist()
    if array.dtype.kind in "OSU":
        return [item if isinstance(item, bytes) else str(item).encode() for item in array.reshape(-1)]
    return array.reshape(-1).tolist()


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
