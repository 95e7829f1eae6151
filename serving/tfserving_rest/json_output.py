"""Write tensors as JSON text, with TensorFlow Serving's formatting of numbers.

Source: tensorflow_serving/util/json_tensor.cc: a float is the shorter of %.6g and %.9g that reads back as the same
float (a double: %.15g and %.17g), with `.0` where it would look like an integer; NaN and Infinity are bare words.
"""

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from serving.backend.protos import wire_pb2 as wire
from serving.contract.dtypes import dtype_name
from serving.runtimes.status import invalid_argument
from serving.runtimes.tensors import to_numpy

BYTES_SUFFIX = "_bytes"  # outputs with such an alias hold binary strings
Writer = Callable[[Any], str]

WHOLE_NUMBERS = frozenset({"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"})


def outputs_as_rows(outputs: Mapping[str, wire.TensorProto]) -> str:
    """`{"predictions": [...]}`: one entry per row, bare for one output, an object for several. Raises CallError."""
    if not outputs:
        raise invalid_argument("Cannot convert empty tensor map to JSON")
    size = -1
    for alias in sorted(outputs):
        sides = _sides(outputs[alias])
        if not sides:
            raise invalid_argument(f"Tensor name: {alias} has no shape information ")
        if size not in (-1, sides[0]):
            message = f"Tensor name: {alias} has inconsistent batch size: {sides[0]} expecting batch size: {size}"
            raise invalid_argument(message)
        size = sides[0]
    columns = {alias: _rows(alias, outputs[alias]) for alias in sorted(outputs)}
    if len(columns) == 1:
        rows = next(iter(columns.values()))
    else:
        names = [json.dumps(alias) for alias in columns]
        rows = [
            "{" + ", ".join(f"{name}: {text}" for name, text in zip(names, row, strict=True)) + "}"
            for row in zip(*columns.values(), strict=True)
        ]
    return _document("predictions", "[" + ", ".join(rows) + "]")


def outputs_as_columns(outputs: Mapping[str, wire.TensorProto]) -> str:
    """`{"outputs": ...}`: a value or list for one output, an object for several. Raises CallError."""
    if not outputs:
        raise invalid_argument("Cannot convert empty tensor map to JSON")
    texts = {alias: _whole(alias, outputs[alias]) for alias in sorted(outputs)}
    if len(texts) == 1:
        return _document("outputs", next(iter(texts.values())))
    return _document("outputs", "{" + ", ".join(f"{json.dumps(alias)}: {text}" for alias, text in texts.items()) + "}")


def classifications(result: wire.ClassificationResult) -> str:
    """`{"results": [[["label", 0.9], ...], ...]}`"""
    rows = [
        "[" + ", ".join(f"[{json.dumps(one.label)}, {float_text(one.score)}]" for one in row.classes) + "]"
        for row in result.classifications
    ]
    return _document("results", "[" + ", ".join(rows) + "]")


def regressions(result: wire.RegressionResult) -> str:
    """`{"results": [1.0, ...]}`"""
    return _document("results", "[" + ", ".join(float_text(one.value) for one in result.regressions) + "]")


def float_text(value: float) -> str:
    """Write a float32. value: exactly representable as float32."""
    if not math.isfinite(value):
        return _special(value)
    short = f"{value:.6g}"
    return _decimal(short if np.float32(short) == value else f"{value:.9g}")


def double_text(value: float) -> str:
    """Write a float64."""
    if not math.isfinite(value):
        return _special(value)
    short = f"{value:.15g}"
    return _decimal(short if float(short) == value else f"{value:.17g}")


def _document(key: str, text: str) -> str:
    return f'{{\n    "{key}": {text}\n}}'


def _special(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _decimal(text: str) -> str:
    return text if any(mark in text for mark in ".e") else text + ".0"


def _sides(tensor: wire.TensorProto) -> list[int]:
    return [dim.size for dim in tensor.tensor_shape.dim]


def _values(alias: str, tensor: wire.TensorProto) -> list[str]:
    """Write every value, in C order."""
    write = _writer(alias, tensor.dtype)
    return [write(value) for value in to_numpy(tensor).reshape(-1).tolist()]


def _writer(alias: str, dtype: int) -> Writer:
    if dtype == wire.DT_FLOAT:
        return float_text
    if dtype == wire.DT_DOUBLE:
        return double_text
    if dtype == wire.DT_BOOL:
        return lambda value: "true" if value else "false"
    if dtype_name(dtype) in WHOLE_NUMBERS:
        return str
    if dtype == wire.DT_STRING:
        return _b64_text if alias.endswith(BYTES_SUFFIX) else _string_text
    raise invalid_argument(f"Failed to write JSON value for tensor type: {dtype_name(dtype)}")


def _string_text(value: bytes) -> str:
    return json.dumps(value.decode("utf-8", "replace"), ensure_ascii=False)


def _b64_text(value: bytes) -> str:
    return '{"b64": "' + base64.b64encode(value).decode() + '"}'


def _whole(alias: str, tensor: wire.TensorProto) -> str:
    sides, values = _sides(tensor), _values(alias, tensor)
    if not sides:
        return values[0]
    return "[" + ", ".join(_nested(values, sides)) + "]"


def _rows(alias: str, tensor: wire.TensorProto) -> list[str]:
    return _nested(_values(alias, tensor), _sides(tensor))


def _nested(values: list[str], sides: Sequence[int]) -> list[str]:
    """Join values to the entries along the first dimension, inner dimensions as lists within them."""
    for side in reversed(sides[1:]):
        if side == 0:
            values = ["[]"] * (len(values) or math.prod(sides[:-1]))
            continue
        values = ["[" + ", ".join(values[at : at + side]) + "]" for at in range(0, len(values), side)]
    return values
