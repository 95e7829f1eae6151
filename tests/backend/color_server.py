"""A real gRPC server of one model, `colors`, whose answers one can compute by hand."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message

from serving.backend.methods import GET_MODEL_STATUS, LIST_MODELS, PREDICT, Method
from serving.backend.protos import wire_pb2 as wire
from serving.contract.card import ModelCard, card_to_json
from serving.runtimes.tensors import to_numpy, to_proto
from tests.cards import COLORS

State = wire.ModelVersionStatus.State
RED = np.array([[[[200, 0, 0]] * 2] * 2], np.uint8)  # (1, 2, 2, 3)


@dataclass
class ColorServer:
    """Answers the share of each channel. versions: what is loaded; fails: what Predict is answered instead.

    others: models that cannot classify, with the states of their version 1. failed: versions with the errors of their
    loads. unproven: reasons. lists: False as TensorFlow Serving.
    """

    versions: dict[int, ModelCard] = field(default_factory=lambda: {1: COLORS})
    loading: tuple[int, ...] = ()
    gone: tuple[int, ...] = ()
    failed: dict[int, tuple[State, str]] = field(default_factory=dict)
    others: dict[str, State] = field(default_factory=dict)
    unproven: dict[int, str] = field(default_factory=dict)
    lists: bool = True
    fails: grpc.StatusCode | None = None
    calls: list[str] = field(default_factory=list)
    metadata: list[tuple[str, str]] = field(default_factory=list)

    def predict(self, request: wire.PredictRequest, context: Any) -> wire.PredictResponse:
        self.calls.append(request.model_spec.signature_name)
        self.metadata += [(pair.key, pair.value) for pair in context.invocation_metadata()]
        if self.fails is not None:
            context.abort(self.fails, "as told")
        spec = request.model_spec
        if spec.version_label:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {spec.version_label}"
            )
        wanted = spec.version.value if spec.HasField("version") else max(self.versions, default=0)
        if spec.name != "colors" or wanted not in self.versions:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Specific({spec.name}, {wanted})")
        response = wire.PredictResponse(model_spec=wire.ModelSpec(name=spec.name))
        response.model_spec.version.value = wanted
        if spec.signature_name == "model_card":
            text = card_to_json(self.versions[wanted]).encode()
            card = wire.TensorProto(dtype=wire.DT_STRING, string_val=[text])
            card.tensor_shape.dim.add(size=1)
            response.outputs["card"].CopyFrom(card)
            return response
        images = to_numpy(request.inputs["image"]).astype(np.float32)
        if images.shape[1:] != self.versions[wanted].input.shape[1:]:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Matrix size-incompatible")
        sums = images.sum(axis=(1, 2))
        to_proto(shares(sums), response.outputs["probabilities"])
        return response

    def status(self, request: wire.GetModelStatusRequest, context: Any) -> wire.GetModelStatusResponse:
        name = request.model_spec.name
        if name in self.others:
            return wire.GetModelStatusResponse(
                model_version_status=[wire.ModelVersionStatus(version=1, state=self.others[name])]
            )
        if name != "colors":
            context.abort(grpc.StatusCode.NOT_FOUND, "Could not find any versions of model")
        rows = [wire.ModelVersionStatus(version=number, state=State.AVAILABLE) for number in self.versions]
        rows += [wire.ModelVersionStatus(version=number, state=State.LOADING) for number in self.loading]
        rows += [wire.ModelVersionStatus(version=number, state=State.END) for number in self.gone]
        rows += [
            wire.ModelVersionStatus(version=number, state=state, status=wire.StatusProto(error_message=error))
            for number, (state, error) in self.failed.items()
        ]
        return wire.GetModelStatusResponse(model_version_status=rows)

    def names(self, request: Message, context: Any) -> wire.ListModelsResponse:  # noqa: ARG002
        if not self.lists:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such service")
        response = wire.ListModelsResponse(name=["colors", *self.others])
        for number in self.versions:
            response.loaded.add(model="colors", version=number, unproven=self.unproven.get(number, ""), classifies=True)
        for name, state in self.others.items():
            if state == State.AVAILABLE:
                response.loaded.add(model=name, version=1, classifies=False)
        return response


def shares(sums: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The share of each channel; of a black picture, a third each. sums: (n, 3)."""
    totals = sums.sum(axis=1, keepdims=True)
    return np.where(totals > 0, sums / np.maximum(1, totals), np.float32(1 / 3))


def handler(method: Method[Any, Any], answer: Callable[..., Any]) -> grpc.GenericRpcHandler:
    """Let a server answer one method. answer: a function of the request and gRPC's context."""
    service, name = method.path.strip("/").split("/")
    row = grpc.unary_unary_rpc_method_handler(answer, method.request.FromString, method.response.SerializeToString)
    return grpc.method_handlers_generic_handler(service, {name: row})


@contextmanager
def serving(colors: ColorServer, threads: int = 4) -> Iterator[str]:
    """A model server that answers as `colors` does. Yields where it listens."""
    server = grpc.server(ThreadPoolExecutor(threads))
    server.add_generic_rpc_handlers(
        (
            handler(PREDICT, colors.predict),
            handler(GET_MODEL_STATUS, colors.status),
            handler(LIST_MODELS, colors.names),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()
