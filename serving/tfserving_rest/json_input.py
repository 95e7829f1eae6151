"""Turn JSON values into tensors: the input side of Predict.

Source: tensorflow_serving/util/json_tensor.cc. Numbers are checked as strictly as there: an integer type takes integers
only, a float type any number, NaN and Infinity.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import grpc
import numpy as np
import numpy.typing as npt

from serving.backend.protos import wire_pb2 as wire
from serving.contract.base64_text import decode_base64
from serving.contract.dtypes import BY_CODE, dtype_name
from serving.runtimes.status import CallError, invalid_argument
from serving.runtimes.tensors import NUMPY_TYPES, to_numpy

B64 = "b64"
MOST_DIMENSIONS = 254  # tensorflow::TensorShape::MaxDimensions()

# The types that take JSON's numbers; TensorFlow Serving converts neither half nor complex ones.
_NUMBERS = {code: dtype for code, dtype in NUMPY_TYPES.items() if dtype.kind in "iuf" and dtype != np.float16}


def is_b64(value: Any) -> bool:
    """Return True for a binary string, `{"b64": "..."}`, which is not an object of named tensors."""
    return isinstance(value, dict) and len(value) == 1 and B64 in value


def decode_b64(value: Mapping[str, Any]) -> bytes:
    """Decode `{"b64": "..."}`, in more spellings than TensorFlow Serving reads. Raises CallError."""
    text = value[B64]
    if not isinstance(text, str):
        raise invalid_argument(f"Illegal to specify non-string value for key '{B64}'")
    try:
        return decode_base64(text)
    except ValueError as exc:
        raise invalid_argument("Unable to base64 decode") from exc


def tensor_from_json(value: Any, dtype: wire.DataType) -> wire.TensorProto:
    """Convert a value or a nested list to a tensor. Raises CallError where a value or a length does not fit."""
    fast = _fast_array(value, dtype)
    if fast is not None:
        tensor = wire.TensorProto(dtype=dtype, tensor_content=fast.astype(fast.dtype.newbyteorder("<")).tobytes())
        shape = fast.shape
    else:
        tensor = wire.TensorProto(dtype=dtype)
        shape = _shape(value)
        _fill(value, shape, 0, _adder(dtype, tensor))
    for side in shape:
        tensor.tensor_shape.dim.add(size=side)
    return tensor


def array_from_json(value: Any, dtype: int) -> npt.NDArray[Any]:
    """Convert a value or a nested list to an array, checked as `tensor_from_json` does. Raises CallError."""
    fast = _fast_array(value, dtype)
    return fast if fast is not None else to_numpy(tensor_from_json(value, cast(wire.DataType, dtype)))


def size_of(tensor: wire.TensorProto) -> int:
    """Count the values of a tensor of this shape."""
    return math.prod(dim.size for dim in tensor.tensor_shape.dim)


def json_text(value: Any) -> str:
    """Write a JSON value as an error message shows it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _fast_array(value: Any, dtype: int) -> npt.NDArray[Any] | None:
    """Convert a list of plain numbers at once; None where each value has to be checked."""
    wanted = _NUMBERS.get(dtype)
    if wanted is None or not isinstance(value, list) or not value:
        return None
    try:
        array = np.array(value)
    except (ValueError, OverflowError):
        return None
    is_number = array.size > 0 and array.dtype.kind in ("fiu" if wanted.kind == "f" else "iu")
    return array.astype(wanted) if is_number and _fits(array, wanted) and not _holds_bool(value) else None


def _fits(array: npt.NDArray[Any], wanted: np.dtype[Any]) -> bool:
    """Return True where the wanted type can hold every number."""
    if wanted.kind != "f":
        limits = np.iinfo(wanted)
        return bool(array.min() >= limits.min and array.max() <= limits.max)
    return wanted != np.float32 or not (np.abs(array[np.isfinite(array)]) > np.finfo(np.float32).max).any()


def _holds_bool(value: Any) -> bool:
    """Find true and false among numbers: numpy takes them for 1 and 0, TensorFlow Serving does not."""
    if isinstance(value, list):
        if value and not isinstance(value[0], list):
            return any(item is True or item is False for item in value)
        return any(map(_holds_bool, value))
    return value is True or value is False


def _shape(value: Any) -> tuple[int, ...]:
    """Read the shape from the first element of each level."""
    sides: list[int] = []
    while isinstance(value, list):
        if len(sides) == MOST_DIMENSIONS:
            raise invalid_argument(f"JSON Value: lists nested more than {MOST_DIMENSIONS} deep")
        sides.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(sides)


def _fill(value: Any, shape: tuple[int, ...], level: int, add: Callable[[Any], None]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid_argument(
                f"JSON Value: {json_text(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        add(value)
        return
    if level >= len(shape):
        raise invalid_argument(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid_argument(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for item in value:
        _fill(item, shape, level + 1, add)


def _adder(dtype: int, tensor: wire.TensorProto) -> Callable[[Any], None]:
    """Make a function that checks one JSON value and appends it to the tensor's typed field."""
    if dtype in _NUMBERS:
        field = getattr(tensor, BY_CODE[dtype].field)
        check = _number if _NUMBERS[dtype].kind == "f" else _integer
        return lambda value: field.append(check(value, dtype))
    if dtype == wire.DT_BOOL:
        return lambda value: tensor.bool_val.append(_checked(isinstance(value, bool), value, dtype))
    if dtype == wire.DT_STRING:
        return lambda value: tensor.string_val.append(_string(value))

    def refuse(value: Any) -> None:
        message = (
            f"Conversion of JSON Value: {json_text(value)} to type: {dtype_name(dtype)} is not currently supported"
        )
        raise CallError(grpc.StatusCode.UNIMPLEMENTED, message)

    return refuse


def _number(value: Any, dtype: int) -> float:
    number = float(_checked(isinstance(value, int | float) and not isinstance(value, bool), value, dtype))
    if dtype == wire.DT_FLOAT and math.isfinite(number) and abs(number) > float(np.finfo(np.float32).max):
        raise _wrong_type(value, dtype)
    return number


def _integer(value: Any, dtype: int) -> int:
    limits = np.iinfo(_NUMBERS[dtype])
    fits = type(value) is int and limits.min <= value <= limits.max
    return int(_checked(fits, value, dtype))


def _string(value: Any) -> bytes:
    if is_b64(value):
        return decode_b64(value)
    return str(_checked(isinstance(value, str), value, wire.DT_STRING)).encode("utf-8", "surrogatepass")


def _checked(fits: bool, value: Any, dtype: int) -> Any:
    if not fits:
        raise _wrong_type(value, dtype)
    return value


def _wrong_type(value: Any, dtype: int) -> CallError:
    return invalid_argument(
        f"JSON Value: {json_text(value)} Type: {_json_type(value)} is not of expected type: {dtype_name(dtype)}"
    )


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "Bool"
    kinds: dict[type, str] = {int: "Number", float: "Number", str: "String", dict: "Object", list: "Array"}
    return kinds.get(type(value), "Null")
