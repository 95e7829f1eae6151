"""What the transcoder needs of whatever answers, and the only error that may come back."""

from typing import Protocol

from serving.backend.protos import wire_pb2 as wire

INVALID_ARGUMENT, UNIMPLEMENTED, DATA_LOSS = 3, 12, 15  # google.rpc.Code


class BackendError(Exception):
    """A call that failed. code: google.rpc.Code, the same as gRPC's; message: for the client."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Backend(Protocol):
    """PredictionService and ModelService. Every method may raise BackendError; deadlines are the backend's own."""

    def predict(self, request: wire.PredictRequest) -> wire.PredictResponse: ...

    def classify(self, request: wire.ClassificationRequest) -> wire.ClassificationResponse: ...

    def regress(self, request: wire.RegressionRequest) -> wire.RegressionResponse: ...

    def metadata(self, request: wire.GetModelMetadataRequest) -> wire.GetModelMetadataResponse: ...

    def status(self, request: wire.GetModelStatusRequest) -> wire.GetModelStatusResponse: ...
