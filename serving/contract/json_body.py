"""JSON of strangers: parsed within limits of bytes, values and depth.

All times were measured with Python 3.11 on one core of a small server.
"""

import gc
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.contract.errors import InvalidJson, RequestTooLarge
from serving.contract.executor import Executor, run_inline

MAX_DEPTH = 64  # of brackets; a batch of pictures in numbers has 6
# From these on a body is parsed off the event loop: below them, parsing and making an array take under 2 ms.
LARGE_BYTES = 262_144
LARGE_VALUES = 8_192
# From here on parsing lets other threads run at each number with a fraction. The parser holds the interpreter
# otherwise, 0.34 us for such a number; lists, whole numbers and strings take a third of that.
MANY_VALUES = 250_000
VALUE_BYTES = 120  # of memory for each value, measured at {"a": 1}, which counts twice
BRACKETS = b'[]{}"'
OTHERS = bytes(sorted(set(range(256)) - set(BRACKETS)))


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """The most that a JSON body may hold. Names are those of the gateway's settings."""

    max_json_bytes: int = 50_000_000
    max_json_values: int = 5_000_000


def parse_json(data: bytes, limits: JsonLimits) -> Any:
    """Parse JSON. Raises RequestTooLarge past a limit, InvalidJson for what is no JSON or nested too deep.

    At the default limits it holds the interpreter for half a second at the most.
    """
    values = count_values(data)
    _require_within(data, values, limits)
    is_collecting = values >= LARGE_VALUES and gc.isenabled()
    if is_collecting:
        gc.disable()  # each new list would be visited again and again: 1.5 s instead of 0.5 s for 5 million
    try:
        return json.loads(data, parse_float=_float if values >= MANY_VALUES else None)
    except (ValueError, RecursionError) as exc:
        raise InvalidJson(f"The body is not JSON: {exc}.") from exc
    finally:
        if is_collecting:
            gc.enable()


def count_values(data: bytes) -> int:
    """Return an upper bound of the values in JSON: commas and opening brackets are counted, in strings too."""
    return data.count(b",") + data.count(b"[") + data.count(b"{") + 1


def run_sized(data: bytes, executor: Executor) -> Executor:
    """Return what work on this JSON should run in: inline where it takes under 2 ms."""
    values = count_values(data) if len(data) < LARGE_BYTES else LARGE_VALUES
    return run_inline if values < LARGE_VALUES else executor


def json_memory(data: bytes) -> int:
    """Return an upper bound of the bytes of memory that parsing takes."""
    return len(data) + VALUE_BYTES * count_values(data)


def _require_within(data: bytes, values: int, limits: JsonLimits) -> None:
    if len(data) > limits.max_json_bytes:
        raise RequestTooLarge(
            f"The JSON has {len(data):,} bytes; the limit is {limits.max_json_bytes:,} (SIGHTLINE_MAX_JSON_BYTES).",
            hint="Send several smaller requests, or images as files.",
        )
    if values > limits.max_json_values:
        raise RequestTooLarge(
            f"The JSON holds up to {values:,} values; the limit is {limits.max_json_values:,} "
            "(SIGHTLINE_MAX_JSON_VALUES).",
            hint="Send several smaller requests, or images as files.",
        )
    if _depth(data) > MAX_DEPTH:
        raise InvalidJson(f"The JSON is nested deeper than {MAX_DEPTH} levels.")


def _depth(data: bytes) -> int:
    """Return the depth of brackets outside strings. Not exact for what is no JSON."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return 0
    if b"\\" in data:  # so that every quote left begins or ends a string
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = np.frombuffer(data.translate(None, OTHERS), np.uint8)
    in_string = np.logical_xor.accumulate(marks == ord('"'))
    steps = ((marks == ord("[")) | (marks == ord("{"))).astype(np.int8) - ((marks == ord("]")) | (marks == ord("}")))
    steps[in_string] = 0
    return int(np.cumsum(steps, dtype=np.int32).max(initial=0))


def _float(text: str) -> float:
    """Parse a number in Python's own code, where another thread may take over."""
    return float(text)
