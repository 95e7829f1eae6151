"""The Predictor that speaks gRPC to TensorFlow Serving or to the embedded model server."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NoReturn

import grpc
import numpy as np
from google.protobuf.wrappers_pb2 import Int64Value

from serving.backend.backends import Backends
from serving.backend.methods import GET_MODEL_STATUS, LIST_MODELS, PREDICT
from serving.backend.predictor import (
    ANYTIME,
    LOADING,
    Call,
    ModelRef,
    Readiness,
    Scores,
    ServedModel,
    VersionChanged,
    VersionState,
    readiness_of,
)
from serving.backend.protos import wire_pb2 as wire
from serving.contract.card import CARD_INPUT, CARD_OUTPUT, CARD_SECONDS, CARD_SIGNATURE, ModelCard, card_from_json
from serving.contract.errors import (
    DeadlineExceeded,
    ModelFailed,
    ModelNotReady,
    ModelServerUnavailable,
    NotAClassifier,
    Overloaded,
    SightlineError,
    UnknownModel,
    UnknownVersion,
)
from serving.contract.preprocessing import Tensor
from serving.runtimes.status import CallError
from serving.runtimes.tensors import to_content_proto, to_numpy

# The error of a status where the call itself has nothing better to say.
ERRORS: dict[grpc.StatusCode, type[SightlineError]] = {
    grpc.StatusCode.UNAVAILABLE: ModelServerUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.NOT_FOUND: UnknownModel,
}
HINTS: dict[type[SightlineError], str] = {
    ModelServerUnavailable: "Is it running? Try again in a moment.",
    DeadlineExceeded: "Try again with fewer pictures, or allow more time.",
    Overloaded: "Try again in a moment.",
}
REFUSALS = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)


@dataclass(frozen=True, slots=True)
class _CachedCard:
    served: ServedModel
    read_at: float  # seconds of the clock


class GrpcPredictor:
    """Run models on model servers that serve the same ones. Safe to share between threads; one per process.

    timeout_seconds: the deadline of each RPC. listed_models: the names to report where the server cannot list its
    models (TensorFlow Serving cannot). clock: monotonic seconds.

    A request stays with the backend that described the model to it: while a new version reaches one backend after the
    other, each is sent what its own version wants.
    """

    def __init__(
        self,
        backends: Backends,
        *,
        timeout_seconds: float = 30.0,
        listed_models: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backends = backends
        self._timeout_seconds = timeout_seconds
        self._listed_models = tuple(listed_models)
        self._clock = clock
        self._cards: dict[tuple[ModelRef, str], _CachedCard] = {}

    def describe(self, ref: ModelRef, call: Call = ANYTIME) -> ServedModel:
        """Return the version that `ref` reaches and its card, cached for a few seconds."""
        try:
            backend = self._backends.choose(self._timeout(call))
        except CallError as exc:
            self._fail(exc, None, call)
        cached = self._cards.get((ref, backend))
        if cached is not None and self._clock() - cached.read_at < CARD_SECONDS:
            return cached.served
        served = replace(self._read_card(ref, backend, call), backend=backend)
        self._cards[(ref, backend)] = _CachedCard(served, self._clock())
        return served

    def predict(self, served: ServedModel, batch: Tensor, call: Call = ANYTIME) -> Scores:
        """Send one batch to the model that `served.ref` names; VersionChanged when another version answers."""
        card = served.card
        request = wire.PredictRequest(
            model_spec=_model_spec(served.ref, card.input.signature), output_filter=[card.output.tensor]
        )
        to_content_proto(batch, request.inputs[card.input.tensor])
        try:
            response = self._predict(request, served.backend, call)
        except CallError as exc:
            self._cards.pop((served.ref, served.backend), None)
            if exc.code in REFUSALS and self._read_card(served.ref, served.backend, call).version != served.version:
                raise VersionChanged from exc
            self._fail(exc, served.ref, call)
        version = response.model_spec.version.value
        if version != served.version:
            self._cards.pop((served.ref, served.backend), None)
            raise VersionChanged
        return Scores(version, _probabilities(response, card, len(batch)))

    def models(self) -> Mapping[str, Sequence[VersionState]]:
        """List every model with its versions: the names first, then the versions of each."""
        listed = self._listed(ANYTIME)
        return {name: listed.described(name, self._states(name, ANYTIME)) for name in listed.names}

    def versions(self, name: str, call: Call = ANYTIME) -> Sequence[VersionState]:
        """List every version that the server knows, newest first. A model of which all are gone is unknown."""
        states = self._states(name, call)
        if not states:
            raise self._unknown_model(name, call)
        return self._listed(call).described(name, states)

    def readiness(self, call: Call = ANYTIME) -> Readiness:
        """Tell what answers and what is still loading: as the server does, else by the states of the listed models."""
        listed = self._list(call)
        if not listed.HasField("readiness"):
            return readiness_of({name: self._states(name, call) for name in sorted(listed.name)})
        told = listed.readiness
        return Readiness(
            tuple(sorted(told.available)),
            tuple(ModelRef(row.model, row.version or None) for row in told.loading),
            tuple((ModelRef(row.model, row.version), row.error) for row in told.failed),
        )

    def _listed(self, call: Call) -> "_Listed":
        listed = self._list(call)
        return _Listed(sorted(listed.name), {(row.model, row.version): row for row in listed.loaded})

    def _list(self, call: Call) -> wire.ListModelsResponse:
        """List the models of the server; where it cannot, `listed_models`."""
        try:
            return self._backends.call(LIST_MODELS, wire.ListModelsRequest(), timeout=self._timeout(call))
        except CallError as exc:
            if exc.code is grpc.StatusCode.UNIMPLEMENTED:
                return wire.ListModelsResponse(name=self._listed_models)
            self._fail(exc, None, call)

    def _states(self, name: str, call: Call) -> list[VersionState]:
        """List every version, newest first; none of a model that is unknown or whose versions are all gone."""
        request = wire.GetModelStatusRequest(model_spec=wire.ModelSpec(name=name))
        try:
            response = self._backends.call(GET_MODEL_STATUS, request, timeout=self._timeout(call))
        except CallError as exc:
            if exc.code is grpc.StatusCode.NOT_FOUND:
                return []
            self._fail(exc, None, call)
        states = [
            VersionState(row.version, wire.ModelVersionStatus.State.Name(row.state), row.status.error_message)
            for row in response.model_version_status
        ]
        if all(state.is_gone for state in states):
            return []
        return sorted(states, key=lambda state: -state.version)

    def _timeout(self, call: Call) -> float:
        left = call.seconds_left()
        if left == 0:  # gRPC would still accept a quick answer
            raise DeadlineExceeded("The time allowed for the request has run out.", hint=HINTS[DeadlineExceeded])
        return self._timeout_seconds if left is None else min(left, self._timeout_seconds)

    def _predict(self, request: wire.PredictRequest, backend: str, call: Call) -> wire.PredictResponse:
        return self._backends.call(
            PREDICT,
            request,
            timeout=self._timeout(call),
            metadata=call.metadata,
            prefer=backend,
        )

    def _read_card(self, ref: ModelRef, backend: str, call: Call) -> ServedModel:
        try:
            response = self._predict(_card_request(ref), backend, call)
        except CallError as exc:
            if exc.code in REFUSALS and "label" not in exc.message:
                raise NotAClassifier(
                    f"Model {ref} has no card: {exc.message}",
                    hint="Where it does classify pictures, adopt it with `sightline export keras`: that gives it one.",
                ) from exc
            self._fail(exc, ref, call)
        card = _card(bytes(to_numpy(response.outputs[CARD_OUTPUT]).flat[0]))
        return ServedModel(ref, response.model_spec.version.value, card)

    def _fail(self, exc: CallError, ref: ModelRef | None, call: Call) -> NoReturn:
        """Raise the Sightline error of a failed call."""
        if ref is not None and exc.code is grpc.StatusCode.NOT_FOUND:
            raise self._not_servable(ref, call) from exc
        if ref is not None and ref.label is not None and "version label" in exc.message:
            raise UnknownVersion(f"Model {ref.name} has no label {ref.label!r}.") from exc
        raise sightline_error(exc, f"the model server at {self._backends} says") from exc

    def _not_servable(self, ref: ModelRef, call: Call) -> SightlineError:
        """Find out why nothing answers for `ref`: no such model, no such version, or one that is not ready yet."""
        versions = self._states(ref.name, call)
        if not versions:
            return self._unknown_model(ref.name, call)
        ready = [state.version for state in versions if state.is_available]
        wanted = [state for state in versions if ref.version in (None, state.version)]
        if any(state.is_available or (state.state in LOADING and not state.error) for state in wanted):
            return ModelNotReady(f"Model {ref} is loading.", hint="Try again in a moment.")
        if ref.version is not None and (ready or all(state.is_gone for state in wanted)):
            return UnknownVersion(
                f"Model {ref.name} has no version {ref.version}.",
                hint=f"Versions that are ready: {', '.join(map(str, ready))}." if ready else "No version is ready yet.",
            )
        reasons = "; ".join(state.error for state in wanted if state.error)
        return ModelNotReady(f"Model {ref} is not ready: {reasons}", hint="Look at GET /models, or export it again.")

    def _unknown_model(self, name: str, call: Call) -> UnknownModel:
        names = self._classifiers(call)
        return UnknownModel(
            f"There is no model {name!r}.",
            hint=f"Models that are served: {', '.join(names)}." if names else "No model is served yet.",
        )

    def _classifiers(self, call: Call) -> list[str]:
        """List the models that classify images now; TensorFlow Serving does not say which, so each is asked."""
        listed = self._listed(call)
        if listed.loaded:
            return sorted({model for (model, _), row in listed.loaded.items() if row.classifies})
        return [name for name in listed.names if self._has_card(name, call)]

    def _has_card(self, name: str, call: Call) -> bool:
        try:
            self._predict(_card_request(ModelRef(name)), "", call)
        except CallError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class _Listed:
    """The models that a server lists. loaded: what is known of each available version; empty for TensorFlow Serving."""

    names: Sequence[str]
    loaded: Mapping[tuple[str, int], wire.LoadedVersion]

    def described(self, name: str, states: Sequence[VersionState]) -> list[VersionState]:
        """Add to the states of a model's versions what is known of the available ones."""
        rows = [self.loaded.get((name, state.version)) if state.is_available else None for state in states]
        return [
            state if row is None else replace(state, unproven=row.unproven, classifies=row.classifies)
            for state, row in zip(states, rows, strict=True)
        ]


def _card_request(ref: ModelRef) -> wire.PredictRequest:
    request = wire.PredictRequest(model_spec=_model_spec(ref, CARD_SIGNATURE))
    to_content_proto(np.zeros(1, np.int32), request.inputs[CARD_INPUT])
    return request


def sightline_error(error: CallError, prefix: str) -> SightlineError:
    """Turn a failed call into one of Sightline's errors, by its code alone. prefix: what its text begins with."""
    kind = ERRORS.get(error.code, ModelFailed)
    return kind(f"{prefix} {error}", hint=HINTS.get(kind, ""))


# A card is read again every few seconds and is nearly always the same; checking one of 1,000 labels takes 15 ms.
_card = lru_cache(maxsize=64)(card_from_json)


def _model_spec(ref: ModelRef, signature: str) -> wire.ModelSpec:
    spec = wire.ModelSpec(name=ref.name, signature_name=signature)
    if ref.version is not None:
        spec.version.CopyFrom(Int64Value(value=ref.version))
    elif ref.label is not None:
        spec.version_label = ref.label
    return spec


def _probabilities(response: wire.PredictResponse, card: ModelCard, rows: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    probabilities = to_numpy(response.outputs[card.output.tensor]).astype(np.float32, copy=False)
    expected = (rows, len(card.labels))
    if probabilities.shape != expected:
        raise ModelFailed(
            f"Model {card.name} answered an array of shape {probabilities.shape}; its card promises {expected}.",
            hint="The card's labels do not match the model: export it again.",
        )
    return probabilities
