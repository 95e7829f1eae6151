"""The model server without a transport: gRPC, REST and the Predict socket are thin layers over this.

Requests and responses are protobuf messages, the official ones or the project's own, which have the same fields: every
method gets the response to fill.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from serving.backend.protos import wire_pb2 as wire
from serving.contract.card import CARD_SIGNATURE
from serving.model_server.calls import tf_examples
from serving.model_server.calls.predict import (
    MAX_REPEATED_BYTES,
    check_metadata_fields,
    fill_metadata,
    predict,
    require_spec,
    version_of,
)
from serving.model_server.loading.servable import Servable
from serving.model_server.metrics import Metrics
from serving.model_server.versions.config_files import model_configs
from serving.model_server.versions.policies import ModelConfig
from serving.model_server.versions.repository import Repository
from serving.runtimes.status import CallError, failed_precondition, invalid_argument, unexpected
from serving.runtimes.tensors import Array, to_content_proto, to_proto

RUNTIME = "TF1"
TensorWriter = Callable[[Array, Any], None]


class ModelServerService:
    """PredictionService and ModelService."""

    def __init__(
        self,
        repository: Repository[Servable],
        metrics: Metrics,
        *,
        tensor_content: bool = False,
        max_repeated_bytes: int = MAX_REPEATED_BYTES,
    ) -> None:
        self._repository = repository
        self._metrics = metrics
        self._write: TensorWriter = to_content_proto if tensor_content else to_proto
        self._max_repeated_bytes = max_repeated_bytes
        self._reloading = threading.Lock()

    def predict(self, request: Any, response: Any, deadline: float | None = None) -> Any:
        """Fill a PredictResponse. deadline: of time.monotonic. Raises CallError, as every method does."""
        require_spec(request)
        spec = request.model_spec
        with self._repository.use(spec.name, *version_of(spec)) as (version, model), self._timed(spec.name, "Predict"):
            name = predict(
                model, request, response.outputs, deadline, self._write, max_repeated_bytes=self._max_repeated_bytes
            )
        _echo(spec, version, name, response.model_spec)
        return response

    def classify(self, request: Any, response: Any, deadline: float | None = None) -> Any:
        """Fill a ClassificationResponse."""
        require_spec(request)
        spec = request.model_spec
        with self._repository.use(spec.name, *version_of(spec)) as (version, model), self._timed(spec.name, "Classify"):
            name = tf_examples.classify(model, request, response.result, deadline)
        _echo(spec, version, name, response.model_spec)
        return response

    def regress(self, request: Any, response: Any, deadline: float | None = None) -> Any:
        """Fill a RegressionResponse."""
        require_spec(request)
        spec = request.model_spec
        with self._repository.use(spec.name, *version_of(spec)) as (version, model), self._timed(spec.name, "Regress"):
            name = tf_examples.regress(model, request, response.result, deadline)
        _echo(spec, version, name, response.model_spec)
        return response

    def multi_inference(self, request: Any, response: Any, deadline: float | None = None) -> Any:
        """Fill a MultiInferenceResponse."""
        if not request.tasks:
            raise invalid_argument("Inference request must have at least one task")
        require_spec(request.tasks[0])
        spec = request.tasks[0].model_spec
        lent, timed = self._repository.use(spec.name, *version_of(spec)), self._timed(spec.name, "MultiInference")
        with lent as (version, model), timed:
            tf_examples.multi_inference(model, request, response, deadline)
        for result in response.results:
            result.model_spec.version.value = version
        return response

    def metadata(self, request: Any, response: Any) -> Any:
        """Fill a GetModelMetadataResponse."""
        require_spec(request)
        check_metadata_fields(request.metadata_field)
        spec = request.model_spec
        with self._repository.use(spec.name, *version_of(spec)) as (version, model):
            fill_metadata(model, request, response)
        _echo(spec, version, "", response.model_spec)
        return response

    def status(self, request: Any, response: Any) -> Any:
        """Fill a GetModelStatusResponse. A label is not looked at, as in TensorFlow Serving."""
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        version, _ = version_of(request.model_spec)
        for status in self._repository.statuses(request.model_spec.name, version):
            row = response.model_version_status.add(version=status.version, state=int(status.state))
            row.status.SetInParent()
            if status.error is not None:
                row.status.error_code, row.status.error_message = status.error.number, status.error.message
        return response

    def list_models(self) -> wire.ListModelsResponse:
        """List the models that are served or wanted, sorted, and what is known of each version that answers."""
        response = wire.ListModelsResponse(name=self._repository.model_names())
        for name, version, servable in self._repository.loaded():
            classifies = CARD_SIGNATURE in servable.signatures
            response.loaded.add(model=name, version=version, unproven=servable.unproven, classifies=classifies)
        return response

    def fill_readiness(self, into: Any) -> None:
        """Fill the Readiness of a ListModelsResponse."""
        into.SetInParent()
        told = self._repository.readiness()
        into.available.extend(told.available)
        for name, version in told.loading:
            into.loading.add(model=name, version=version)
        for name, version, error in told.failed:
            into.failed.add(model=name, version=version, error=str(error))

    def reload(self, request: Any, response: Any, is_wanted: Callable[[], bool]) -> Any:
        """Replace the list of models and wait for the new ones. is_wanted: whether the client still waits."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        if self._repository.follows_folder:
            raise failed_precondition("The models are those of a folder (--models): add and remove them there.")
        before = self._metrics.totals(request.metric_names)
        self.configure(model_configs(request.config.model_config_list), is_wanted)
        after = self._metrics.totals(request.metric_names)
        response.status.SetInParent()
        for name, total in after.items():
            response.metric.add(name=name, int64_value_increase=total - before[name])
        return response

    def configure(self, configs: Sequence[ModelConfig], is_wanted: Callable[[], bool]) -> None:
        """Replace the list of models and block until every new one has a version AVAILABLE or END."""
        with self._reloading:
            new = self._repository.configure(configs)
        self._repository.wait_until_settled(new, what="model", give_up=lambda: not is_wanted())

    def counted(self, model_name: str, api: str, entrypoint: str, call: Callable[[], Any]) -> Any:
        """Run `call`, of a method of this service, and note it in the metrics. Raises CallError and nothing else."""
        started, code = time.perf_counter(), grpc.StatusCode.INTERNAL
        try:
            answer = call()
            code = grpc.StatusCode.OK
            return answer
        except CallError as exc:
            code = exc.code
            raise
        except Exception as exc:
            raise unexpected() from exc
        finally:
            self.count(model_name, api, entrypoint, started, code)

    def count(self, model_name: str, api: str, entrypoint: str, started: float, code: grpc.StatusCode) -> None:
        """Count one finished request. api: `Predict`; over REST `predict`. started: of time.perf_counter."""
        self._metrics.requests.add(model_name, code.name)
        if code is grpc.StatusCode.OK:
            self._metrics.request_latency.observe((time.perf_counter() - started) * 1e6, model_name, api, entrypoint)

    def prometheus(self) -> str:
        """Write all metrics as Prometheus text."""
        return self._metrics.prometheus()

    def _timed(self, model_name: str, api: str) -> "_Timed":
        return _Timed(self._metrics, model_name, api)


class _Timed:
    """Measure how long the runtime takes; a failure is not noted."""

    def __init__(self, metrics: Metrics, model_name: str, api: str) -> None:
        self._metrics, self._labels = metrics, (model_name, api, RUNTIME)

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._metrics.runtime_latency.observe((time.perf_counter() - self._started) * 1e6, *self._labels)


def _echo(spec: Any, version: int, signature_name: str, into: Any) -> None:
    """Fill in the version and the signature that answered, resolved: never a label, never empty."""
    into.name = spec.name
    into.version.value = version
    into.signature_name = signature_name
