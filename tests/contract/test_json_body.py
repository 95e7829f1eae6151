import gc
import json
import random
import threading
import time
import tracemalloc
from itertools import pairwise

import pytest

from serving.contract.errors import InvalidJson, RequestTooLarge
from serving.contract.executor import run_inline
from serving.contract.json_body import (
    MAX_DEPTH,
    JsonLimits,
    count_values,
    json_memory,
    parse_json,
    run_sized,
)

LIMITS = JsonLimits()


@pytest.mark.parametrize("value", [{}, [], {"a": [1, 2.5, "x,y[{", None]}, "text", 0.1, [[[1]]]])
def test_json_is_parsed(value: object) -> None:
    assert parse_json(json.dumps(value).encode(), LIMITS) == value


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(InvalidJson, match="not JSON"):
        parse_json(b'{"a":', LIMITS)
    with pytest.raises(InvalidJson, match="not JSON"):
        parse_json(b"\xff", LIMITS)


def test_more_bytes_than_allowed_are_refused() -> None:
    with pytest.raises(RequestTooLarge, match=r"12 bytes.*limit is 10 .*SIGHTLINE_MAX_JSON_BYTES"):
        parse_json(b'"0123456789"', JsonLimits(10))


def test_more_values_than_allowed_are_refused_before_they_are_parsed() -> None:
    data = b"[" + b"[]," * 6_000_000 + b"[]]"
    start = time.process_time()
    with pytest.raises(RequestTooLarge, match="SIGHTLINE_MAX_JSON_VALUES"):
        parse_json(data, LIMITS)
    assert time.process_time() - start < 0.5  # parsing takes seconds


@pytest.mark.parametrize("value", [[], [1], {"a": 1}, [[], []], {"a": [1, 2], "b": {}}])
def test_the_count_is_no_less_than_the_values(value: object) -> None:
    def values(each: object) -> int:
        inner = each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        return 1 + sum(map(values, inner))

    assert count_values(json.dumps(value).encode()) >= values(value)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 65 + b"]" * 65,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b'"\\"' + b"[" * 65 + b'"' + b"[" * 65,
        b'["a\\\\",' + b"[" * 64 + b"]" * 65,
        b'["a\\\\\\"",' + b"[" * 64 + b"]" * 65,
        b"[" * 100_000,
    ],
)
def test_json_nested_too_deep_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidJson, match=f"deeper than {MAX_DEPTH}"):
        parse_json(data, LIMITS)


@pytest.mark.parametrize(
    "value",
    [
        ["[" * 100, '"' * 5 + "{" * 100, "\\" * 3 + '"' + "[" * 100, "\\" * 4],
        [[[1, 2]] * 100] * 3,
        {"[[[": ["{" * 200]},
    ],
)
def test_brackets_in_strings_and_beside_each_other_do_not_nest(value: object) -> None:
    assert parse_json(json.dumps(value).encode(), LIMITS) == value


def test_many_decimals_are_exact_and_let_other_threads_run() -> None:
    numbers = [random.Random(7).random() for _ in range(1000)] * 1000
    data = json.dumps(numbers).encode()
    ticks, done = [time.perf_counter()], threading.Event()

    def tick() -> None:
        while not done.is_set():
            time.sleep(0.002)
            ticks.append(time.perf_counter())

    thread = threading.Thread(target=tick)
    thread.start()
    start = time.perf_counter()
    parsed = parse_json(data, LIMITS)
    spent = time.perf_counter() - start
    done.set()
    thread.join()
    assert parsed == numbers
    assert max(after - before for before, after in pairwise(ticks)) < spent / 2


def test_garbage_collection_is_on_again_afterwards() -> None:
    parse_json(b"[" + b"1," * 10_000 + b"1]", LIMITS)
    assert gc.isenabled()


def test_small_json_is_parsed_inline_and_large_elsewhere() -> None:
    def elsewhere(work, size=0):  # type: ignore[no-untyped-def]  # noqa: ARG001
        return work()

    numbers = json.dumps([[0.5] * 3] * 28 * 28).encode()
    assert run_sized(numbers, elsewhere) is run_inline
    assert run_sized(json.dumps([0] * 10_000).encode(), elsewhere) is elsewhere
    assert run_sized(b'"' + b"A" * 300_000 + b'"', elsewhere) is elsewhere


def test_memory_is_an_upper_bound() -> None:
    for unit in (b'{"a":1}', b"[]", b"0.5", b'"x"'):
        data = b"[" + b",".join([unit] * 100_000) + b"]"
        tracemalloc.start()
        parsed = parse_json(data, LIMITS)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(parsed) == 100_000
        assert peak <= json_memory(data)
