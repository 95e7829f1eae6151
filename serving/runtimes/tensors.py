"""Convert TensorProto to numpy and back, as TensorFlow's C++ does.

`tf.make_ndarray` and `tf.make_tensor_proto` differ from C++ in ways that clients notice: the first refuses a list with
too many values, of which C++ keeps the first ones; the second packs its numbers into `tensor_content`, where TensorFlow
Serving fills the typed field that clients read (`outputs["y"].float_val`).
Source: tensorflow/core/framework/tensor.cc, Tensor::FromProto and Tensor::AsProtoField.
"""

import contextlib
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.contract.dtypes import BY_CODE, DTYPES, STRING

with contextlib.suppress(ImportError):
    import ml_dtypes  # noqa: F401  numpy learns bfloat16 of it; a gateway, which is without it, meets none

Array = npt.NDArray[Any]

BITS = ("half_val",)  # holds patterns of 16 bits
PAIRS = ("scomplex_val", "dcomplex_val")  # hold real, imaginary, real, ...


def _numpy_types() -> dict[int, np.dtype[Any]]:
    types = {}
    for dtype in DTYPES:
        with contextlib.suppress(TypeError):  # bfloat16 without ml_dtypes
            types[dtype.code] = np.dtype(dtype.numpy)
    return types


NUMPY_TYPES = _numpy_types()
CODES = {dtype: code for code, dtype in NUMPY_TYPES.items()}
# The packed form of these fields, serialised, is the array's own bytes: field number << 3 | 2, a length, the bytes.
_PACKED_TAGS = {"float_val": b"\x2a", "double_val": b"\x32"}


def repeated_bytes(tensor: Any) -> int:
    """Count the bytes of the array whose values the message repeats or leaves out; 0 where it holds each of them.

    Raises ValueError where `to_numpy` does for the type or the shape.
    """
    count, dtype = _count(tensor), NUMPY_TYPES[tensor.dtype]
    if tensor.tensor_content:
        return 0
    field = BY_CODE[tensor.dtype].field
    given = len(getattr(tensor, field)) // (2 if field in PAIRS else 1)
    return max(0, count - given) * dtype.itemsize


def to_numpy(tensor: Any) -> Array:
    """Read a TensorProto; strings become bytes in an object array. The array may be read-only.

    Loose values: too many are dropped, too few are filled up with the last, none at all are zeros.
    Raises ValueError where C++ refuses the tensor: an unknown type, an unknown shape, contents of another length.
    """
    count, shape = _count(tensor), _shape(tensor.tensor_shape)
    if tensor.tensor_content and count:
        return _from_content(tensor.tensor_content, tensor.dtype, count).reshape(shape)
    return _from_values(tensor, count).reshape(shape)


def to_proto(array: Array, into: Any) -> None:
    """Write an array into an empty TensorProto: shape, type and the typed field. Raises TypeError for other types."""
    code = _code(array)
    field = BY_CODE[code].field
    if field in _PACKED_TAGS and array.size:
        into.MergeFromString(_PACKED_TAGS[field] + _varint(array.nbytes) + np.ascontiguousarray(array).tobytes())
    else:
        getattr(into, field).extend(_loose(array, field))
    into.dtype = code
    for side in array.shape:
        into.tensor_shape.dim.add().size = side


def to_content_proto(array: Array, into: Any) -> None:
    """Write an array into an empty TensorProto as bytes; strings have no such form and keep theirs.

    Raises TypeError for a type that TensorFlow does not have.
    """
    if array.dtype.kind in "OSU":
        to_proto(array, into)
        return
    into.dtype = _code(array)
    into.tensor_content = np.ascontiguousarray(array).tobytes()
    for side in array.shape:
        into.tensor_shape.dim.add().size = side


def _code(array: Array) -> int:
    code = STRING.code if array.dtype.kind in "OSU" else CODES.get(array.dtype)
    if code is None:
        raise TypeError(f"TensorFlow has no type for {array.dtype}")
    return code


def _count(tensor: Any) -> int:
    """Count the values of a tensor. Raises ValueError where its type or its shape cannot be read."""
    if tensor.dtype not in NUMPY_TYPES:
        raise ValueError(f"type {tensor.dtype} cannot be read")
    return math.prod(_shape(tensor.tensor_shape))


def _shape(proto: Any) -> tuple[int, ...]:
    shape = tuple(dim.size for dim in proto.dim)
    if proto.unknown_rank or any(side < 0 for side in shape):
        raise ValueError("the shape is not fully known")
    return shape


def _from_content(content: bytes, code: int, count: int) -> Array:
    if code == STRING.code:
        return _strings(content, count)
    dtype = NUMPY_TYPES[code]
    if len(content) != count * dtype.itemsize:
        raise ValueError(f"{len(content)} bytes for {count} values of {dtype}")
    return np.frombuffer(content, dtype)


def _strings(content: bytes, count: int) -> Array:
    """Decode `count` lengths as varints, then the strings: port::DecodeStringList."""
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
    field = BY_CODE[tensor.dtype].field
    dtype = NUMPY_TYPES[tensor.dtype]
    loose = getattr(tensor, field)
    if tensor.dtype == STRING.code:
        return _fill(_objects(loose[:count]), count, b"")
    if field in _PACKED_TAGS and len(loose) > 64:
        values = _unpack(type(tensor), field, loose, dtype)
    elif field in PAIRS:
        parts = np.array(loose, dtype=np.float64).reshape(-1, 2)
        values = (parts[:, 0] + 1j * parts[:, 1]).astype(dtype)
    elif field in BITS:
        values = np.array(loose, dtype=np.int64).astype(np.uint16).view(dtype)
    else:
        values = np.array(loose, dtype=np.int64 if field == "int_val" else dtype).astype(dtype)
    return _fill(values[:count], count, 0)


def _unpack(kind: Any, field: str, loose: Any, dtype: np.dtype[Any]) -> Array:
    """Read a long list of floats without a Python object for each: serialise that field alone, take its bytes."""
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


def _loose(array: Array, field: str) -> Any:
    if field in PAIRS:
        return np.ascontiguousarray(array).reshape(-1).view(array.real.dtype).tolist()
    if field in BITS:
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
