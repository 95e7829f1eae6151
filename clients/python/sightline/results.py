"""The answers of a service about models and pictures, as frozen values."""

from dataclasses import dataclass
from typing import Any, Literal

from sightline.errors import SightlineError

Reason = Literal["uncertain"]  # why a prediction has no label


@dataclass(frozen=True, slots=True)
class Label:
    """One class and how likely it is. index: its row in the model's output; score: 0-1.

    id: the model card's, such as ImageNet's `n02112350`; None where the model's ids say nothing more.
    """

    label: str
    index: int
    score: float
    id: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Prediction:
    """The classes of one picture. top: the best ones, best first; score: 0-1, of the first.

    label: the first's name; None where its score is below the `min_score` of the request, and then reason is
    `uncertain`. raw_score: the first's before calibration, 0-1; None where the model is not calibrated.
    probabilities: of every class, in the order of the card's labels; None where only the best were asked for.
    """

    name: str
    label: str | None
    score: float
    top: tuple[Label, ...]
    model: str
    version: int
    request_id: str
    raw_score: float | None = None
    reason: Reason | None = None
    probabilities: tuple[float, ...] | None = None

    @property
    def id(self) -> str | None:
        """The id of the class that `label` names; None without a label, and where the model has no such ids."""
        return None if self.label is None else self.top[0].id

    def __repr__(self) -> str:
        said = f"{self.label!r}, {self.score:.4f}" + (f", {self.reason}" if self.reason else "")
        return f"Prediction({said}, name={self.name!r}, model={self.model!r} v{self.version})"


@dataclass(frozen=True, slots=True, repr=False)
class Failed:
    """A picture without an answer, and why."""

    name: str
    error: SightlineError

    def __repr__(self) -> str:
        return f"Failed({self.name!r}, {self.error.code}: {self.error.detail})"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a model. state: TensorFlow Serving's name, such as AVAILABLE; error: why it could not load."""

    version: int
    state: str
    error: str


@dataclass(frozen=True, slots=True, repr=False)
class Model:
    """A model that a service knows. versions: newest first.

    card: the model card of the version that answers, as JSON; None where the service did not send one.
    """

    name: str
    versions: tuple[Version, ...]
    card: dict[str, Any] | None

    @property
    def version(self) -> int | None:
        """The newest version that is available, None where none is."""
        return max((row.version for row in self.versions if row.state == "AVAILABLE"), default=None)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the model's output; empty without a card."""
        return tuple(label["name"] for label in self.card["labels"]) if self.card else ()

    def __repr__(self) -> str:
        states = ", ".join(f"{row.version} {row.state}" for row in self.versions)
        return f"Model({self.name!r}, versions: {states or 'none'})"
