"""The model card, which travels inside the model.

A card is in two places of a version: as `assets.extra/model_card.json`, and as the answer of the SavedModel's
signature `model_card`, so that a gateway reads it over gRPC from the very version that answers.
"""

import json
import math
import types
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from serving.contract.errors import InvalidCard
from serving.contract.preprocessing import Preprocessing

SCHEMA_VERSION = 1
CARD_SIGNATURE = "model_card"  # probe: int32 [n] -> card: string [n]
CARD_INPUT, CARD_OUTPUT = "probe", "card"
CARD_SECONDS = 5.0  # how long a gateway caches a version's card; reading it costs one small RPC
CARD_FILE = Path("assets.extra") / "model_card.json"
LARGEST_ATOL = 0.1  # of a probability; bfloat16 needs it, float32 a ten-thousandth of it


@dataclass(frozen=True, slots=True)
class Input:
    """The signature that classifies and its one input. shape: n, h, w, c; None where any size is taken."""

    signature: str
    tensor: str
    dtype: Literal["uint8", "float32"]
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Output:
    """The output that holds one row of probabilities for each picture."""

    tensor: str
    kind: Literal["probabilities"]


@dataclass(frozen=True, slots=True)
class Class:
    """One class. id: stable and machine-readable (a WordNet id, a digit); name: what people read."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Calibration:
    """temperature: what logits are divided by; 1 leaves them.

    Source: Guo et al., "On calibration of modern neural networks", 2017.
    """

    temperature: float


@dataclass(frozen=True, slots=True)
class Source:
    """The origin of the model. sha256: of the data set's files in name order, or of the weights' file."""

    kind: Literal["dataset", "weights"]
    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Training:
    """The training. epochs is 0 for weights that were only loaded; seconds are of the wall clock."""

    epochs: int
    parameters: int
    seed: int
    seconds: float
    tensorflow: str
    keras: str


@dataclass(frozen=True, slots=True)
class Golden:
    """The golden examples beside the card: how many, and how far an answer may be from Keras's (absolute)."""

    n: int
    atol: float

    def __post_init__(self) -> None:
        """Refuse a tolerance that would let wrong answers through. Raises InvalidCard."""
        if not 0 <= self.atol <= LARGEST_ATOL:
            raise InvalidCard(f"golden.atol is {self.atol:g}; it must be from 0 to {LARGEST_ATOL:g}")


@dataclass(frozen=True)  # without slots, for the cached property
class ModelCard:
    """The model card. Every field is required; an unknown one is refused.

    created: ISO 8601 in UTC. metrics: by name, such as `test_accuracy`, 0-1.
    """

    schema_version: int
    name: str
    family: str
    created: str
    input: Input
    output: Output
    preprocessing: Preprocessing
    labels: tuple[Class, ...]
    calibration: Calibration
    source: Source
    training: Training
    metrics: dict[str, float]
    golden: Golden

    def __post_init__(self) -> None:
        """Refuse a card whose parts do not agree. Raises InvalidCard."""
        if self.schema_version != SCHEMA_VERSION:
            raise InvalidCard(
                f"the card has schema_version {self.schema_version}; this version of Sightline reads {SCHEMA_VERSION}",
                hint="Export the model again.",
            )
        if not self.labels:
            raise InvalidCard("the card has no labels")
        if self.input.dtype != self.preprocessing.dtype:
            raise InvalidCard(
                f"input.dtype is {self.input.dtype}, preprocessing.dtype is {self.preprocessing.dtype}: they must agree"
            )

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        """The classes' names in the order of the model's output."""
        return tuple(label.name for label in self.labels)

    @cached_property
    def class_ids(self) -> tuple[str, ...]:
        """The classes' ids in the same order; none where each is only the class's row number or its name again."""
        says_more = any(label.id not in (str(row), label.name) for row, label in enumerate(self.labels))
        return tuple(label.id for label in self.labels) if says_more else ()


def card_to_dict(card: ModelCard) -> dict[str, Any]:
    """Convert the card to JSON's types, in the order of its fields."""
    return asdict(card)


def card_to_json(card: ModelCard) -> str:
    """Write the card as one line of JSON."""
    return json.dumps(card_to_dict(card), allow_nan=False)


def card_from_json(text: str | bytes) -> ModelCard:
    """Read and check a card. Raises InvalidCard and names the field."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidCard(f"the card is not JSON: {exc}", hint="Export the model again.") from exc
    card: ModelCard = _read(ModelCard, data, "card")
    return card


def read_card(version_dir: Path) -> ModelCard:
    """Read the card of a version on disk. Raises InvalidCard where there is none or it cannot be used."""
    path = version_dir / CARD_FILE
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise InvalidCard(
            f"no card at {path}: {exc.strerror}", hint="Export the model with `sightline export`."
        ) from exc
    return card_from_json(text)


def _read(kind: Any, value: Any, where: str) -> Any:  # noqa: PLR0911 - one line for each kind of type
    """Read parsed JSON as the annotated type `kind`. Raises InvalidCard that names the place, `where`."""
    origin, args = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _read_fields(kind, value, where)
    if origin is Literal:
        return _expect(value in args, value, where, f"one of {', '.join(map(repr, args))}")
    if origin in (Union, types.UnionType):
        return None if value is None else _read(next(a for a in args if a is not types.NoneType), value, where)
    if origin is tuple:
        _expect(isinstance(value, list), value, where, "a list")
        return tuple(_read(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        _expect(isinstance(value, dict), value, where, "an object")
        return {key: _read(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return float(_expect(number, value, where, "a finite number"))
    return _expect(type(value) is kind, value, where, f"a {kind.__name__}")


@lru_cache
def _hints(kind: Any) -> dict[str, Any]:
    """Return the types of a dataclass's fields, cached: a card has 1,000 labels."""
    return get_type_hints(kind)


def _read_fields(kind: Any, value: Any, where: str) -> Any:
    _expect(isinstance(value, dict), value, where, "an object")
    hints = _hints(kind)
    names = [field.name for field in fields(kind)]
    missing, unknown = sorted(set(names) - set(value)), sorted(set(value) - set(names))
    if missing or unknown:
        raise InvalidCard(
            f"{where}: missing fields {missing}, unknown fields {unknown}", hint="Export the model again."
        )
    return kind(**{name: _read(hints[name], value[name], f"{where}.{name}") for name in names})


def _expect(holds: bool, value: Any, where: str, wanted: str) -> Any:
    if not holds:
        raise InvalidCard(f"{where} is {value!r}; it must be {wanted}")
    return value
