"""gRPC's side of the model server: the official services, thin over `predict.py` and `repository.py`."""

import logging
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.backend.protos import wire_pb2 as wire
from serving.model_server.predict import check_metadata_fields, fill_metadata, predict, require_spec, version_of
from serving.model_server.repository import Repository
from serving.model_server.runner import SavedModel
from serving.model_server.status import CallError, cut, invalid_argument

logger = logging.getLogger(__name__)

Response = TypeVar("Response")


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]
    """tensorflow.serving.PredictionService"""

    def __init__(self, repository: Repository[SavedModel]) -> None:
        self._repository = repository

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  gRPC's name
        return _answer(context, lambda: self._predict(request, _deadline(context)))

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return _answer(context, lambda: self._metadata(request))

    def _predict(self, request: Any, deadline: float | None) -> Any:
        require_spec(request)
        spec, response = request.model_spec, predict_pb2.PredictResponse()
        with self._repository.use(spec.name, *version_of(spec)) as (version, model):
            signature_name = predict(model, request, response.outputs, deadline)
        _echo(spec, version, signature_name, response.model_spec)
        return response

    def _metadata(self, request: Any) -> Any:
        require_spec(request)
        check_metadata_fields(request.metadata_field)
        spec, response = request.model_spec, get_model_metadata_pb2.GetModelMetadataResponse()
        with self._repository.use(spec.name, *version_of(spec)) as (version, model):
            fill_metadata(model, request, response)
        _echo(spec, version, "", response.model_spec)
        return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):  # type: ignore[misc]
    """tensorflow.serving.ModelService"""

    def __init__(self, repository: Repository[SavedModel]) -> None:
        self._repository = repository

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return _answer(context, lambda: self._status(request))

    def _status(self, request: Any) -> Any:
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        version, _ = version_of(request.model_spec)  # a label is not looked at, as in TensorFlow Serving
        response = get_model_status_pb2.GetModelStatusResponse()
        for status in self._repository.statuses(request.model_spec.name, version):
            row = response.model_version_status.add(version=status.version, state=int(status.state))
            row.status.SetInParent()
            if status.error is not None:
                row.status.error_code, row.status.error_message = status.error.number, status.error.message
        return response


def add_services(server: grpc.Server, repository: Repository[SavedModel]) -> None:
    """Register everything that the model server answers."""
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(repository), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(repository), server)
    server.add_generic_rpc_handlers((_list_models_handler(repository),))


def _list_models_handler(repository: Repository[SavedModel]) -> grpc.GenericRpcHandler:
    """Our own extension: TensorFlow Serving cannot tell which models it has."""
    service = wire.DESCRIPTOR.services_by_name["ModelRepository"]

    def list_models(request: wire.ListModelsRequest, context: grpc.ServicerContext) -> wire.ListModelsResponse:  # noqa: ARG001
        return wire.ListModelsResponse(name=repository.model_names())

    method = grpc.unary_unary_rpc_method_handler(
        list_models, wire.ListModelsRequest.FromString, wire.ListModelsResponse.SerializeToString
    )
    return grpc.method_handlers_generic_handler(service.full_name, {"ListModels": method})


def _answer(context: grpc.ServicerContext, call: Callable[[], Response]) -> Response:
    """The border: a CallError becomes a status, anything else is logged and becomes INTERNAL without details."""
    try:
        return call()
    except CallError as exc:
        _abort(context, exc)
    except Exception:
        logger.exception("a call failed that should not have")
        _abort(
            context, CallError(grpc.StatusCode.INTERNAL, "internal error of the model server; its log has the details")
        )


def _abort(context: grpc.ServicerContext, error: CallError) -> NoReturn:
    context.abort(error.code, cut(error.message))
    raise AssertionError("abort does not return")


def _deadline(context: grpc.ServicerContext) -> float | None:
    """The call's deadline on time.monotonic, or None where the client waits for ever."""
    left = context.time_remaining()
    return None if left is None else time.monotonic() + left


def _echo(spec: Any, version: int, signature_name: str, into: Any) -> None:
    """Say which version and signature answered, as numbers and names, never as labels or blanks."""
    into.name = spec.name
    into.version.value = version
    into.signature_name = signature_name
