"""TensorFlow Serving's services over gRPC, for the transcoder of its REST API."""

from typing import Any

import grpc

from serving.backend.backends import Backends
from serving.backend.grpc_predictor import GET_MODEL_STATUS, PREDICT
from serving.backend.predictor import Call
from serving.backend.protos import wire_pb2 as wire
from serving.contract.errors import ModelServerUnavailable
from serving.tfserving_rest import BackendError

CLASSIFY = "/tensorflow.serving.PredictionService/Classify"
REGRESS = "/tensorflow.serving.PredictionService/Regress"
GET_MODEL_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"


class GrpcBackend:
    """A Backend of the transcoder, for one request. call: its deadline (it must have one), and what travels with it."""

    def __init__(self, backends: Backends, call: Call) -> None:
        self._backends = backends
        self._options = call

    def predict(self, request: wire.PredictRequest) -> wire.PredictResponse:
        response: wire.PredictResponse = self._call(PREDICT, request, wire.PredictResponse)
        return response

    def classify(self, request: wire.ClassificationRequest) -> wire.ClassificationResponse:
        response: wire.ClassificationResponse = self._call(CLASSIFY, request, wire.ClassificationResponse)
        return response

    def regress(self, request: wire.RegressionRequest) -> wire.RegressionResponse:
        response: wire.RegressionResponse = self._call(REGRESS, request, wire.RegressionResponse)
        return response

    def metadata(self, request: wire.GetModelMetadataRequest) -> wire.GetModelMetadataResponse:
        response: wire.GetModelMetadataResponse = self._call(GET_MODEL_METADATA, request, wire.GetModelMetadataResponse)
        return response

    def status(self, request: wire.GetModelStatusRequest) -> wire.GetModelStatusResponse:
        response: wire.GetModelStatusResponse = self._call(GET_MODEL_STATUS, request, wire.GetModelStatusResponse)
        return response

    def _call(self, path: str, request: Any, response: Any) -> Any:
        try:
            timeout = self._options.seconds_left() or 0.0
            return self._backends.call(path, request, response, timeout=timeout, metadata=self._options.metadata)
        except grpc.RpcError as exc:
            raise BackendError(exc.code().value[0], exc.details() or "") from exc
        except ModelServerUnavailable as exc:
            raise BackendError(grpc.StatusCode.UNAVAILABLE.value[0], str(exc)) from exc
