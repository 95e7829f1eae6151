"""Read class names from the files that people have: text, CSV, or JSON, as Keras and Teachable Machine write them."""

import csv
import io
import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from serving.contract.card import Class
from serving.contract.errors import InvalidData
from serving.contract.names import nfc
from serving.contract.text_files import read_text

IMAGENET = Path(__file__).with_name("imagenet_classes.txt")  # a class per line: its WordNet id and its name
NAME_COLUMNS = ("name", "label", "class", "category", "class_name")
INDEX_COLUMNS = ("index", "id", "class_id", "class_index", "label_id")
NUMBERED = re.compile(r"(\d+)(?:\s*[:,;]\s*|\s+)(\S.*)")  # `0 cat`, `0: cat`, `0,cat`
SHOWN = 5  # names in an error


def read_labels(path: Path, expected: int | None = None) -> tuple[Class, ...]:
    """Read the classes, in the order of the model's output. Names are composed (NFC).

    path: text with a name per line, numbered from 0 or not; a CSV of names, with or without their numbers; a JSON list
    of names; JSON {"cat": 0, ...}, Keras's `class_indices`; {"0": "tench", ...}; or {"0": ["n01440764", "tench"], ...},
    as Keras downloads it. Raises InvalidData for other content, for a class that occurs twice, and for a number of
    classes other than `expected`.
    """
    try:
        labels = [Class(nfc(identity), nfc(name)) for identity, name in _pairs(read_text(path), path.suffix.lower())]
    except (OSError, ValueError, csv.Error) as exc:
        raise InvalidData(
            f"{path} holds no readable class names: {exc}.", hint="Write one name per line, in UTF-8."
        ) from exc
    _refuse_repeated(path, labels)
    if not labels or (expected is not None and len(labels) != expected):
        raise InvalidData(
            f"{path} names {len(labels)} classes ({_shown(labels)}); the model's output has {expected or 'some'}.",
            hint="Give one name per class, in the order of the model's output.",
        )
    return tuple(labels)


def imagenet_classes() -> tuple[Class, ...]:
    """The thousand classes of ImageNet (ILSVRC 2012), in the order of pretrained networks."""
    rows = (line.split(maxsplit=1) for line in IMAGENET.read_text(encoding="utf-8").splitlines())
    return tuple(Class(identity, name) for identity, name in rows)


def numbered(n: int) -> tuple[Class, ...]:
    """Number the classes of a model that comes without names."""
    return tuple(Class(str(index), f"class {index}") for index in range(n))


def _refuse_repeated(path: Path, labels: Sequence[Class]) -> None:
    """ImageNet has two cranes and two maillots: the same name with two ids is two classes."""
    first: dict[Class, int] = {}
    for index, label in enumerate(labels):
        if label in first:
            raise InvalidData(
                f"{path} names {label.name!r} twice, as classes {first[label]} and {index}.",
                hint='Tell the two apart: rename one, or give ids as JSON, {"0": ["id", "name"], ...}.',
            )
        first[label] = index


def _shown(labels: Sequence[Class]) -> str:
    names = [label.name for label in labels]
    return ", ".join(names if len(names) <= SHOWN else [*names[: SHOWN - 1], "...", names[-1]]) or "none"


def _pairs(text: str, suffix: str) -> list[tuple[str, str]]:
    """(id, name) of each class."""
    if suffix == ".json" or text.lstrip().startswith(("{", "[")):
        return _from_json(json.loads(text, object_pairs_hook=_object))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if suffix in (".csv", ".tsv") or any(line.startswith('"') for line in lines):
        names = _from_csv(text, "\t" if suffix == ".tsv" else ",")
    else:
        names = _from_lines(lines)
    return [(name, name) for name in names]


def _from_lines(lines: Sequence[str]) -> list[str]:
    """A name per line. Where every line begins with a number, and these are 0 to n - 1, they are not part of it."""
    found = [NUMBERED.fullmatch(line) for line in lines]
    pairs = [(match[2], int(match[1])) for match in found if match]
    if len(pairs) == len(lines) and _is_counted([number for _, number in pairs]):
        return _in_order(pairs)
    return list(lines)


def _from_csv(text: str, delimiter: str) -> list[str]:
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)]
    rows = [row for row in rows if any(row)]
    name, index = 0, None
    head = [cell.lower() for cell in rows[0]] if rows else []
    if found := [place for place, cell in enumerate(head) if cell in NAME_COLUMNS]:
        rows = rows[1:]
        name = next((place for place in found if not _is_counted(_numbers(rows, place))), found[0])
        numbering = [place for place in found if place != name and _is_counted(_numbers(rows, place))]
        indexes = [place for place, cell in enumerate(head) if cell in INDEX_COLUMNS]
        index = next(iter(indexes + numbering), None)
    elif len(head) == 2:
        index = next((place for place in (0, 1) if _is_counted(_numbers(rows, place))), None)
        name = 1 if index == 0 else 0
    width = max((len(row) for row in rows), default=0)
    if width > 1 and index is None and not found:
        raise ValueError(f"a row has {width} columns, and none of them numbers the classes from 0")
    if short := next((row for row in rows if len(row) <= max(name, index or 0) or not row[name]), None):
        raise ValueError(f"the row {','.join(short)!r} has no name")
    if index is None:
        return [row[name] for row in rows]
    return _in_order([(row[name], _number(row[index])) for row in rows])


def _from_json(value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict) and value and all(type(index) is int for index in value.values()):
        return [(name, name) for name in _in_order(list(value.items()))]
    if isinstance(value, dict):
        value = [value[key] for key in _in_order([(key, _number(key)) for key in value])]
    if not isinstance(value, list):
        raise ValueError("the JSON is neither a list nor an object")
    return [_pair(row) for row in value]


def _pair(row: Any) -> tuple[str, str]:
    match row:
        case str():
            return row, row
        case [str(identity), str(name)]:
            return identity, name
    raise ValueError(f"{json.dumps(row, ensure_ascii=False)[:80]} is no name")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = sorted(key for key, _ in pairs)
    if twice := next((key for key, other in pairwise(keys) if key == other), None):
        raise ValueError(f"the JSON names {twice!r} twice")
    return dict(pairs)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() else -1


def _numbers(rows: Sequence[Sequence[str]], place: int) -> list[int]:
    return [_number(row[place]) for row in rows if len(row) > place]


def _is_counted(numbers: Sequence[int]) -> bool:
    return bool(numbers) and sorted(numbers) == list(range(len(numbers)))


def _in_order(pairs: Sequence[tuple[str, int]]) -> list[str]:
    """The names by their numbers. Raises ValueError unless these are 0 to n - 1, each once."""
    ordered = sorted(pairs, key=lambda pair: pair[1])
    for (name, number), (other, following) in pairwise(ordered):
        if number == following:
            raise ValueError(f"{name!r} and {other!r} have the same number, {number}")
    if not _is_counted([number for _, number in ordered]):
        given = ", ".join(str(number) for _, number in ordered[:SHOWN])
        raise ValueError(f"the {len(ordered)} classes are not numbered from 0 to {len(ordered) - 1}, but {given}, ...")
    return [name for name, _ in ordered]
