"""What a service answers, as frozen values."""

from dataclasses import dataclass

from serving.contract.card import ModelCard
from serving.contract.errors import SightlineError
from serving.contract.prediction import Label, Reason


@dataclass(frozen=True, slots=True, repr=False)
class Prediction:
    """What a model says of one picture. top: the best classes, best first; score: 0-1, of the first.

    label: the first's name; None where its score is below the `min_score` that was asked for, and then reason is
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

    def __repr__(self) -> str:
        said = f"{self.label!r}, {self.score:.4f}" + (f", {self.reason}" if self.reason else "")
        return f"Prediction({said}, name={self.name!r}, model={self.model!r} v{self.version})"


@dataclass(frozen=True, slots=True, repr=False)
class Failed:
    """A picture that has no answer, and why."""

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
    """A model that a service knows. versions: newest first; card: of the version that answers, None where unread."""

    name: str
    versions: tuple[Version, ...]
    card: ModelCard | None

    @property
    def version(self) -> int | None:
        """The newest version that is available, None where none is."""
        return max((row.version for row in self.versions if row.state == "AVAILABLE"), default=None)

    def __repr__(self) -> str:
        states = ", ".join(f"{row.version} {row.state}" for row in self.versions)
        return f"Model({self.name!r}, versions: {states or 'none'})"
