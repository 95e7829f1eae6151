"""The gRPC methods of a model server that Sightline calls."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from serving.backend.protos import wire_pb2 as wire

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Response]):
    """One method. path: as gRPC sends it; request, response: the classes of its messages."""

    path: str
    request: type[Request]
    response: type[Response]


PREDICT = Method("/tensorflow.serving.PredictionService/Predict", wire.PredictRequest, wire.PredictResponse)
CLASSIFY = Method(
    "/tensorflow.serving.PredictionService/Classify", wire.ClassificationRequest, wire.ClassificationResponse
)
REGRESS = Method("/tensorflow.serving.PredictionService/Regress", wire.RegressionRequest, wire.RegressionResponse)
GET_MODEL_METADATA = Method(
    "/tensorflow.serving.PredictionService/GetModelMetadata",
    wire.GetModelMetadataRequest,
    wire.GetModelMetadataResponse,
)
GET_MODEL_STATUS = Method(
    "/tensorflow.serving.ModelService/GetModelStatus", wire.GetModelStatusRequest, wire.GetModelStatusResponse
)
LIST_MODELS = Method("/sightline.wire.ModelRepository/ListModels", wire.ListModelsRequest, wire.ListModelsResponse)
