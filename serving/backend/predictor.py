"""The protocol of whatever runs the models, and the values that cross it."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from serving.contract.card import ModelCard
from serving.contract.errors import DeadlineExceeded
from serving.contract.preprocessing import Tensor

LOADING = ("START", "LOADING")  # states of a version before it is available


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model by name alone (the newest version that is ready), by version, or by label."""

    name: str
    version: int | None = None
    label: str | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name} version {self.version}"
        return self.name if self.label is None else f"{self.name} label {self.label}"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A version that answers, and its card. ref: what was asked for, so that a later call asks for the same.

    backend: whose version it is, so that a batch made for it goes there; "" where that is not known.
    """

    ref: ModelRef
    version: int
    card: ModelCard
    backend: str = ""


@dataclass(frozen=True, slots=True)
class Scores:
    """probabilities: float32 (n, classes), a row for each picture; version: the one that computed them."""

    version: int
    probabilities: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class VersionState:
    """One version of a model and what it is doing. state: TensorFlow Serving's name, such as AVAILABLE.

    error: of the last attempt to load it. unproven: the reason that an available version is not known to be the one
    that was exported, "" where it is. classifies: it has a card. Both are None where the server does not say: of a
    version that is not available, and TensorFlow Serving never.
    """

    version: int
    state: str
    error: str
    unproven: str | None = None
    classifies: bool | None = None

    @property
    def is_available(self) -> bool:
        """True where the version answers requests."""
        return self.state == "AVAILABLE"

    @property
    def is_gone(self) -> bool:
        """True where it was unloaded because nobody wants it any more, such as one whose folder was deleted."""
        return self.state in ("UNLOADING", "END") and not self.error


@dataclass(frozen=True, slots=True)
class Readiness:
    """The models that a server can answer for.

    available: models, sorted. failed: versions that could not be loaded, and why.
    loading: versions that were on disk when the server started, or models without any version yet.
    """

    available: tuple[str, ...] = ()
    loading: tuple[ModelRef, ...] = ()
    failed: tuple[tuple[ModelRef, str], ...] = ()


def readiness_of(models: Mapping[str, Sequence[VersionState]]) -> Readiness:
    """Judge models by the states of their versions alone, for a server that does not tell what was on its disk.

    A model is loading until one of its versions is available or has failed for good.
    """
    available = {name for name, states in models.items() if any(state.is_available for state in states)}
    failed = [(ModelRef(name, each.version), each.error) for name, states in models.items() for each in states]
    loading: list[ModelRef] = []
    for name, states in models.items():
        if name not in available and not any(state.error for state in states):
            loading += [ModelRef(name, state.version) for state in states if state.state in LOADING] or [ModelRef(name)]
    return Readiness(tuple(sorted(available)), tuple(loading), tuple(row for row in failed if row[1]))


@dataclass(frozen=True, slots=True)
class Call:
    """The deadline and the metadata of one request.

    deadline: monotonic seconds after which the answer is no longer wanted; None leaves it to the predictor.
    metadata: pairs that travel with the RPC, such as `traceparent`. is_abandoned: the client has gone.
    """

    deadline: float | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    is_abandoned: Callable[[], bool] = field(default=lambda: False, compare=False)

    def seconds_left(self) -> float | None:
        """Return the seconds until the deadline, 0 when it has passed, None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def require_wanted(self) -> None:
        """Raise DeadlineExceeded when the deadline has passed or the client has gone."""
        if self.seconds_left() == 0:
            raise DeadlineExceeded(
                "The time allowed for the request ran out before its work was done.",
                hint="Send fewer or smaller images, or allow more time.",
            )
        if self.is_abandoned():
            raise DeadlineExceeded("The client has gone.")

    def is_before(self, other: "Call") -> bool:
        """Return True where its deadline comes first."""
        return (math.inf if self.deadline is None else self.deadline) < (
            math.inf if other.deadline is None else other.deadline
        )


ANYTIME = Call()


class VersionChanged(Exception):
    """Another version answers than the one that the batch was made for; the caller describes and sends again."""


class Predictor(Protocol):
    """Runs models. Every method may raise ModelServerUnavailable and DeadlineExceeded."""

    def describe(self, ref: ModelRef, call: Call = ANYTIME) -> ServedModel:
        """Return the version that a request for `ref` is expected to reach, with its card.

        Raises UnknownModel, UnknownVersion, NotAClassifier, ModelNotReady, InvalidCard.
        """

    def predict(self, served: ServedModel, batch: Tensor, call: Call = ANYTIME) -> Scores:
        """Classify a batch, as `served.card` says: uint8 or float32 (n, height, width, channels), n >= 1.

        Raises VersionChanged, UnknownModel, UnknownVersion, ModelNotReady, ModelFailed.
        """

    def models(self) -> Mapping[str, Sequence[VersionState]]:
        """List every model by name, sorted, with its versions, newest first; none where nothing was ever loaded."""

    def readiness(self, call: Call = ANYTIME) -> Readiness:
        """Tell what answers and what is still loading."""

    def versions(self, name: str) -> Sequence[VersionState]:
        """List every version that the server knows, newest first. Raises UnknownModel."""
