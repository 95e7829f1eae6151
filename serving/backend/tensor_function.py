"""A signature of one input and one output, called over gRPC: for models that are no classifiers."""

from typing import Any

import grpc

from serving.backend.backends import Backends
from serving.backend.grpc_predictor import ERRORS, HINTS, PREDICT
from serving.backend.protos import wire_pb2 as wire
from serving.contract.errors import ModelFailed
from serving.runtimes.tensors import Array, to_content_proto, to_numpy


class TensorFunction:
    """Array to array, on the newest version of a model. Safe to share between threads.

    signature, input, output: names in the SavedModel.
    """

    def __init__(
        self, backends: Backends, model: str, *, signature: str, input: str, output: str, timeout_seconds: float
    ) -> None:
        self._backends = backends
        self._spec = wire.ModelSpec(name=model, signature_name=signature)
        self._input, self._output = input, output
        self._timeout_seconds = timeout_seconds

    def __call__(self, values: Array) -> Array:
        """The signature's output. Raises UnknownModel, ModelServerUnavailable, DeadlineExceeded, ModelFailed."""
        request = wire.PredictRequest(model_spec=self._spec, output_filter=[self._output])
        to_content_proto(values, request.inputs[self._input])
        try:
            response: Any = self._backends.call(PREDICT, request, wire.PredictResponse, timeout=self._timeout_seconds)
        except grpc.RpcError as exc:
            kind = ERRORS.get(exc.code(), ModelFailed)
            name = self._spec.name
            raise kind(f"model {name}: {exc.code().name}: {exc.details()}", hint=HINTS.get(kind, "")) from exc
        return to_numpy(response.outputs[self._output])
