"""The Predictor that speaks gRPC to TensorFlow Serving or to the embedded model server.

Create it after a process has forked, never before: gRPC's channels do not survive a fork.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
import numpy as np
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int64Value

from serving.backend.predictor import ANYTIME, Call, ModelRef, Scores, ServedModel, VersionChanged, VersionState
from serving.backend.protos import wire_pb2 as wire
from serving.backend.tensors import from_proto, to_proto
from serving.contract.card import CARD_INPUT, CARD_OUTPUT, CARD_SIGNATURE, ModelCard, card_from_json
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

PREDICT = "/tensorflow.serving.PredictionService/Predict"
GET_MODEL_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
LIST_MODELS = "/sightline.wire.ModelRepository/ListModels"

CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),  # gRPC's default of 4 MiB is seven photos of 448 x 448
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),  # a model server that returns is found within a second;
    ("grpc.min_reconnect_backoff_ms", 100),  # gRPC's own back-off grows to two minutes
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 30_000),  # a peer that vanished without a word is noticed
)
CARD_SECONDS = 5.0  # how long a card is believed before it is read again; costs one small RPC
LOADING = ("START", "LOADING")

# What the server's status means where the call itself has nothing better to say.
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
    """Runs models on a model server. Safe to share between threads; one per process.

    targets: `host:port` of one server, or of several that serve the same models (requests go round them in turn).
    timeout_seconds: the deadline of each RPC. listed_models: the names to report where the server cannot list its
    models (TensorFlow Serving cannot). clock: monotonic seconds.
    """

    def __init__(
        self,
        targets: Sequence[str],
        *,
        timeout_seconds: float = 30.0,
        listed_models: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._target = ",".join(targets)
        self._timeout_seconds = timeout_seconds
        self._listed_models = tuple(listed_models)
        self._clock = clock
        self._cards: dict[ModelRef, _CachedCard] = {}
        address = targets[0] if len(targets) == 1 else f"ipv4:{self._target}"
        policy = ("grpc.lb_policy_name", "round_robin")
        self._channel = grpc.insecure_channel(address, options=(*CHANNEL_OPTIONS, policy))
        self._predict = self._method(PREDICT, wire.PredictResponse)
        self._status = self._method(GET_MODEL_STATUS, wire.GetModelStatusResponse)
        self._list = self._method(LIST_MODELS, wire.ListModelsResponse)

    def close(self) -> None:
        """Give the connections back."""
        self._channel.close()

    def describe(self, ref: ModelRef) -> ServedModel:
        """The version that `ref` reaches and its card, from memory when it was read a moment ago."""
        cached = self._cards.get(ref)
        if cached is not None and self._clock() - cached.read_at < CARD_SECONDS:
            return cached.served
        served = self._read_card(ref)
        self._cards[ref] = _CachedCard(served, self._clock())
        return served

    def predict(self, served: ServedModel, batch: Tensor, call: Call = ANYTIME) -> Scores:
        """Send one batch to the model that `served.ref` names; VersionChanged when another version answers."""
        card = served.card
        request = wire.PredictRequest(
            model_spec=_model_spec(served.ref, card.input.signature),
            inputs={card.input.tensor: to_proto(batch)},
            output_filter=[card.output.tensor],
        )
        try:
            response = self._predict(request, timeout=self._timeout(call), metadata=call.metadata)
        except grpc.RpcError as exc:
            self._cards.pop(served.ref, None)
            if exc.code() in REFUSALS and self.describe(served.ref).version != served.version:
                raise VersionChanged from exc
            self._fail(exc, served.ref)
        version = response.model_spec.version.value
        if version != served.version:
            self._cards.pop(served.ref, None)
            raise VersionChanged
        return Scores(version, _probabilities(response, card, len(batch)))

    def models(self) -> Mapping[str, Sequence[VersionState]]:
        """Every model with its versions, in two steps: the names, then the versions of each."""
        models: dict[str, Sequence[VersionState]] = {}
        for name in self._model_names():
            try:
                models[name] = self.versions(name)
            except UnknownModel:  # a folder without a version, or one that has just gone
                models[name] = ()
        return models

    def _model_names(self) -> Sequence[str]:
        """The models that the server lists, or the listed ones where it cannot."""
        try:
            response = self._list(wire.ListModelsRequest(), timeout=self._timeout_seconds)
        except grpc.RpcError as exc:
            if exc.code() == grpc.StatusCode.UNIMPLEMENTED:
                return sorted(self._listed_models)
            self._fail(exc, None)
        return sorted(response.name)

    def versions(self, name: str) -> Sequence[VersionState]:
        """Every version that the server knows of, newest first."""
        request = wire.GetModelStatusRequest(model_spec=wire.ModelSpec(name=name))
        try:
            response = self._status(request, timeout=self._timeout_seconds)
        except grpc.RpcError as exc:
            if exc.code() == grpc.StatusCode.NOT_FOUND:
                raise self._unknown_model(name) from exc
            self._fail(exc, None)
        states = [
            VersionState(row.version, wire.ModelVersionStatus.State.Name(row.state), row.status.error_message)
            for row in response.model_version_status
        ]
        return sorted(states, key=lambda state: -state.version)

    def _timeout(self, call: Call) -> float:
        left = call.seconds_left()
        if left == 0:  # gRPC would still accept an answer that comes quickly
            raise DeadlineExceeded("the time allowed for the request has run out", hint=HINTS[DeadlineExceeded])
        return self._timeout_seconds if left is None else min(left, self._timeout_seconds)

    def _method(self, path: str, response: Any) -> Any:
        return self._channel.unary_unary(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )

    def _read_card(self, ref: ModelRef) -> ServedModel:
        probe = to_proto(np.zeros(1, np.int32))
        request = wire.PredictRequest(model_spec=_model_spec(ref, CARD_SIGNATURE), inputs={CARD_INPUT: probe})
        try:
            response = self._predict(request, timeout=self._timeout_seconds)
        except grpc.RpcError as exc:
            if exc.code() in REFUSALS and "label" not in (exc.details() or ""):
                raise NotAClassifier(
                    f"model {ref} has no card: {exc.details()}",
                    hint="Where it does classify pictures, adopt it with `sightline export keras`: that gives it one.",
                ) from exc
            self._fail(exc, ref)
        card = card_from_json(bytes(from_proto(response.outputs[CARD_OUTPUT]).flat[0]))
        return ServedModel(ref, response.model_spec.version.value, card)

    def _fail(self, exc: grpc.RpcError, ref: ModelRef | None) -> NoReturn:
        """Raise what a failed RPC means to the caller: the one border at which gRPC's errors become ours."""
        code, details = exc.code(), exc.details() or ""
        if ref is not None and code == grpc.StatusCode.NOT_FOUND:
            raise self._not_servable(ref) from exc
        if ref is not None and ref.label is not None and "version label" in details:
            raise UnknownVersion(f"model {ref.name} has no label {ref.label!r}") from exc
        kind = ERRORS.get(code, ModelFailed)
        raise kind(f"the model server at {self._target} says {code.name}: {details}", hint=HINTS.get(kind, "")) from exc

    def _not_servable(self, ref: ModelRef) -> SightlineError:
        """Why the server has nothing for `ref`: no such model, no such version, or one that is not ready yet."""
        versions = self.versions(ref.name)  # raises UnknownModel
        ready = [state.version for state in versions if state.is_available]
        wanted = [state for state in versions if ref.version in (None, state.version)]
        if any(state.is_available or state.state in LOADING for state in wanted):
            return ModelNotReady(f"model {ref} is loading", hint="Try again in a moment.")
        if ref.version is not None and ready:
            return UnknownVersion(
                f"model {ref.name} has no version {ref.version}",
                hint=f"Versions that are ready: {', '.join(map(str, ready))}.",
            )
        reasons = "; ".join(state.error for state in wanted if state.error) or "no version of it could be loaded"
        return ModelNotReady(f"model {ref} is not ready: {reasons}", hint="Look at GET /models, or export it again.")

    def _unknown_model(self, name: str) -> UnknownModel:
        names = self._model_names()
        return UnknownModel(
            f"there is no model {name!r}",
            hint=f"Models that are served: {', '.join(names)}." if names else "No model is served yet.",
        )


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _model_spec(ref: ModelRef, signature: str) -> wire.ModelSpec:
    spec = wire.ModelSpec(name=ref.name, signature_name=signature)
    if ref.version is not None:
        spec.version.CopyFrom(Int64Value(value=ref.version))
    elif ref.label is not None:
        spec.version_label = ref.label
    return spec


def _probabilities(response: wire.PredictResponse, card: ModelCard, rows: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    probabilities = from_proto(response.outputs[card.output.tensor]).astype(np.float32, copy=False)
    expected = (rows, len(card.labels))
    if probabilities.shape != expected:
        raise ModelFailed(
            f"model {card.name} answered an array of shape {probabilities.shape}; its card promises {expected}",
            hint="The card's labels do not match the model: export it again.",
        )
    return probabilities
