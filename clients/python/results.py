"""What a service answers, as frozen values."""

from dataclasses import dataclass

from serving.contract.card import ModelCard
from serving.contract.errors import SightlineError
from serving.contract.prediction import Label


@dataclass(frozen=True, slots=True, repr=False)
class Prediction:
    """What a model says of one picture. top: the best classes, best first; score: 0-1, of the first."""

    name: str
    label: str
    score: float
    top: tuple[Label, ...]
    model: str
    version: int
    request_id: str

    def __repr__(self) -> str:
        return f"Prediction({self.label!r}, {self.score:.4f}, name={self.name!r}, model={self.model!r} v{self.version})"


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
