"""A signature of one input and one output, called over gRPC: for models that are no classifiers."""

from collections.abc import Sequence
from typing import Any

import grpc

from serving.backend.grpc_predictor import CHANNEL_OPTIONS, ERRORS, HINTS, PREDICT
from serving.backend.protos import wire_pb2 as wire
from serving.backend.tensors import Array, from_proto, to_proto
from serving.contract.errors import ModelFailed


class TensorFunction:
    """Array to array, on the newest version of a model. Safe to share between threads; one per process, after the fork.

    targets: as of GrpcPredictor. signature, input, output: names in the SavedModel.
    """

    def __init__(
        self, targets: Sequence[str], model: str, *, signature: str, input: str, output: str, timeout_seconds: float
    ) -> None:
        address = targets[0] if len(targets) == 1 else f"ipv4:{','.join(targets)}"
        self._channel = grpc.insecure_channel(address, (*CHANNEL_OPTIONS, ("grpc.lb_policy_name", "round_robin")))
        self._call = self._channel.unary_unary(
            PREDICT,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=wire.PredictResponse.FromString,
        )
        self._spec = wire.ModelSpec(name=model, signature_name=signature)
        self._input, self._output = input, output
        self._timeout_seconds = timeout_seconds

    def close(self) -> None:
        """Give the connection back."""
        self._channel.close()

    def __call__(self, values: Array) -> Array:
        """The signature's output. Raises UnknownModel, ModelServerUnavailable, DeadlineExceeded, ModelFailed."""
        request = wire.PredictRequest(
            model_spec=self._spec, inputs={self._input: to_proto(values)}, output_filter=[self._output]
        )
        try:
            response: Any = self._call(request, timeout=self._timeout_seconds)
        except grpc.RpcError as exc:
            kind = ERRORS.get(exc.code(), ModelFailed)
            name = self._spec.name
            raise kind(f"model {name}: {exc.code().name}: {exc.details()}", hint=HINTS.get(kind, "")) from exc
        return from_proto(response.outputs[self._output])
