"""A signature of one input and one output as a function, for models that are no classifiers."""

from serving.backend.backends import Backends
from serving.backend.grpc_predictor import sightline_error
from serving.backend.methods import PREDICT
from serving.backend.protos import wire_pb2 as wire
from serving.runtimes.status import CallError
from serving.runtimes.tensors import Array, to_content_proto, to_numpy


class TensorFunction:
    """Map an array to an array on the newest version of a model. Safe to share between threads.

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
        """Compute the output. Raises UnknownModel, ModelServerUnavailable, DeadlineExceeded, ModelFailed."""
        request = wire.PredictRequest(model_spec=self._spec, output_filter=[self._output])
        to_content_proto(values, request.inputs[self._input])
        try:
            response = self._backends.call(PREDICT, request, timeout=self._timeout_seconds)
        except CallError as exc:
            raise sightline_error(exc, f"model {self._spec.name}:") from exc
        return to_numpy(response.outputs[self._output])
