"""TensorFlow Serving's services over gRPC, for the transcoder of its REST API."""

from collections.abc import Sequence
from typing import Any

import grpc

from serving.backend.grpc_predictor import CHANNEL_OPTIONS, GET_MODEL_STATUS, PREDICT
from serving.backend.protos import wire_pb2 as wire
from serving.tfserving_rest import BackendError

CLASSIFY = "/tensorflow.serving.PredictionService/Classify"
REGRESS = "/tensorflow.serving.PredictionService/Regress"
GET_MODEL_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"


class GrpcBackend:
    """A Backend of the transcoder. targets, timeout_seconds: as of GrpcPredictor. One per process, after the fork."""

    def __init__(self, targets: Sequence[str], *, timeout_seconds: float) -> None:
        address = targets[0] if len(targets) == 1 else f"ipv4:{','.join(targets)}"
        self._channel = grpc.insecure_channel(address, (*CHANNEL_OPTIONS, ("grpc.lb_policy_name", "round_robin")))
        self._timeout_seconds = timeout_seconds

    def close(self) -> None:
        """Give the connections back."""
        self._channel.close()

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
        method = self._channel.unary_unary(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        try:
            return method(request, timeout=self._timeout_seconds)
        except grpc.RpcError as exc:
            raise BackendError(exc.code().value[0], exc.details() or "") from exc
