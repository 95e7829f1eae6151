"""The official gRPC services, thin over `service.py`."""

import time
from collections.abc import Callable
from typing import Any, NoReturn

import grpc

from serving.backend.protos import wire_pb2 as wire
from serving.model_server.service import ModelServerService
from serving.runtimes.messages import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)
from serving.runtimes.status import CallError, cut, unexpected

ENTRYPOINT = "GRPC"
NO_DEADLINE_SECONDS = 10 * 365 * 24 * 3600  # gRPC reports no deadline as a very long one


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]
    """tensorflow.serving.PredictionService"""

    def __init__(self, service: ModelServerService) -> None:
        self._service = service

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  gRPC's name
        return self._counted(context, "Predict", self._service.predict, request, predict_pb2.PredictResponse())

    def Classify(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        response = classification_pb2.ClassificationResponse()
        return self._counted(context, "Classify", self._service.classify, request, response)

    def Regress(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._counted(context, "Regress", self._service.regress, request, regression_pb2.RegressionResponse())

    def MultiInference(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        response = inference_pb2.MultiInferenceResponse()
        return _answer(context, lambda: self._service.multi_inference(request, response, _deadline(context)))

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        return _answer(context, lambda: self._service.metadata(request, response))

    def _counted(
        self, context: grpc.ServicerContext, api: str, call: Callable[..., Any], request: Any, response: Any
    ) -> Any:
        def answer() -> Any:
            return call(request, response, _deadline(context))

        return _answer(context, lambda: self._service.counted(request.model_spec.name, api, ENTRYPOINT, answer))


class ModelService(model_service_pb2_grpc.ModelServiceServicer):  # type: ignore[misc]
    """tensorflow.serving.ModelService"""

    def __init__(self, service: ModelServerService) -> None:
        self._service = service

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        response = get_model_status_pb2.GetModelStatusResponse()
        return _answer(context, lambda: self._service.status(request, response))

    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        response = model_management_pb2.ReloadConfigResponse()
        return _answer(context, lambda: self._service.reload(request, response, context.is_active))


def add_services(server: grpc.Server, service: ModelServerService) -> None:
    """Register everything that the model server answers."""
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(service), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(service), server)
    server.add_generic_rpc_handlers((_list_models_handler(service),))


def _list_models_handler(service: ModelServerService) -> grpc.GenericRpcHandler:
    """Our own extension: TensorFlow Serving cannot tell which models it has."""
    name = wire.DESCRIPTOR.services_by_name["ModelRepository"].full_name

    def list_models(request: wire.ListModelsRequest, context: grpc.ServicerContext) -> wire.ListModelsResponse:  # noqa: ARG001
        response = service.list_models()
        service.fill_readiness(response.readiness)
        return response

    method = grpc.unary_unary_rpc_method_handler(
        list_models, wire.ListModelsRequest.FromString, wire.ListModelsResponse.SerializeToString
    )
    return grpc.method_handlers_generic_handler(name, {"ListModels": method})


def _answer(context: grpc.ServicerContext, call: Callable[[], Any]) -> Any:
    """Turn a CallError into a gRPC status; log anything else and answer INTERNAL without details."""
    try:
        return call()
    except CallError as exc:
        _abort(context, exc)
    except Exception:  # noqa: BLE001  the border, see unexpected
        _abort(context, unexpected())


def _abort(context: grpc.ServicerContext, error: CallError) -> NoReturn:
    context.abort(error.code, cut(error.message))
    raise AssertionError("abort does not return")


def _deadline(context: grpc.ServicerContext) -> float | None:
    """Return the call's deadline on time.monotonic, None where the client waits without limit."""
    left = context.time_remaining()
    return None if left is None or left > NO_DEADLINE_SECONDS else time.monotonic() + left
