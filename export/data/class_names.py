"""Class names out of the files that people have: a name per line, a JSON list, Keras's class index."""

import json
from pathlib import Path
from typing import Any

from serving.contract.card import Class
from serving.contract.errors import InvalidData


def read_labels(path: Path, expected: int | None = None) -> tuple[Class, ...]:
    """The classes in the order of the model's output.

    path: text with a name per line; a JSON list of names; or JSON {"0": ["n01440764", "tench"], ...} as Keras downloads
    it, or {"0": "tench", ...}. Raises InvalidData for another content, or another number of classes than expected.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        labels = _of_json(json.loads(text)) if path.suffix == ".json" else _of_lines(text)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as exc:
        raise InvalidData(f"{path} holds no labels that can be read: {exc}", hint="Write a name per line.") from exc
    if not labels or (expected is not None and len(labels) != expected):
        raise InvalidData(f"{path} names {len(labels)} classes; the model's output has {expected or 'some'}")
    return labels


def numbered(n: int) -> tuple[Class, ...]:
    """Names for a model that brings none."""
    return tuple(Class(str(index), f"class {index}") for index in range(n))


def _of_lines(text: str) -> tuple[Class, ...]:
    return tuple(Class(name, name) for name in (line.strip() for line in text.splitlines()) if name)


def _of_json(value: Any) -> tuple[Class, ...]:
    rows = value if isinstance(value, list) else [value[str(index)] for index in range(len(value))]
    pairs = [(row, row) if isinstance(row, str) else (row[0], row[1]) for row in rows]
    return tuple(Class(str(identity), str(name)) for identity, name in pairs)
