"""Read class names from the files that people have: a name per line, a JSON list, Keras's class index."""

import json
from pathlib import Path
from typing import Any

from serving.contract.card import Class
from serving.contract.errors import InvalidData

IMAGENET = Path(__file__).with_name("imagenet_classes.txt")  # a class per line: its WordNet id and its name


def read_labels(path: Path, expected: int | None = None) -> tuple[Class, ...]:
    """Read the classes, in the order of the model's output.

    path: text with a name per line; a JSON list of names; or JSON {"0": ["n01440764", "tench"], ...} as Keras downloads
    it, or {"0": "tench", ...}. Raises InvalidData for other content, and for a number of classes other than `expected`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        labels = _from_json(json.loads(text)) if path.suffix == ".json" else _from_lines(text)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as exc:
        raise InvalidData(f"{path} holds no readable class names: {exc}.", hint="Write one name per line.") from exc
    if not labels or (expected is not None and len(labels) != expected):
        raise InvalidData(
            f"{path} names {len(labels)} classes; the model's output has {expected or 'some'}.",
            hint="Give one name per class, in the order of the model's output.",
        )
    return labels


def imagenet_classes() -> tuple[Class, ...]:
    """The thousand classes of ImageNet (ILSVRC 2012), in the order of pretrained networks."""
    rows = (line.split(maxsplit=1) for line in IMAGENET.read_text(encoding="utf-8").splitlines())
    return tuple(Class(identity, name) for identity, name in rows)


def numbered(n: int) -> tuple[Class, ...]:
    """Number the classes of a model that comes without names."""
    return tuple(Class(str(index), f"class {index}") for index in range(n))


def _from_lines(text: str) -> tuple[Class, ...]:
    return tuple(Class(name, name) for name in (line.strip() for line in text.splitlines()) if name)


def _from_json(value: Any) -> tuple[Class, ...]:
    rows = value if isinstance(value, list) else [value[str(index)] for index in range(len(value))]
    pairs = [(row, row) if isinstance(row, str) else (row[0], row[1]) for row in rows]
    return tuple(Class(str(identity), str(name)) for identity, name in pairs)
