"""/v2/...: the Open Inference Protocol, for clients of KServe and Triton."""

from flask import Blueprint, Response, g, request

from serving.backend.predictor import ModelRef, Predictor
from serving.classify import failures, scored
from serving.contract.card import ModelCard
from serving.contract.errors import BadRequest, DeadlineExceeded, Unavailable, UnknownModel
from serving.contract.preprocessing import Tensor
from serving.gateway.guard import client_has_gone
from serving.gateway.http.inference_v2 import (
    EXTENSIONS,
    HEADER_LENGTH,
    first_bad,
    inference_answer,
    model_metadata,
    read_inference,
)
from serving.gateway.http.openapi import BYTES, WHOLE, Operation, Parameter, described, version_of_sightline
from serving.gateway.http.requests import BODY_ERRORS, TIMEOUT_HEADER, read_body, read_call, read_version
from serving.gateway.http.responses import classifies, is_ready
from serving.gateway.http.schemas import (
    IndexEntry,
    InferAnswer,
    InferRequest,
    Live,
    Metadata,
    ModelNames,
    ModelReady,
    Server,
    ServerReady,
)
from serving.gateway.routes import health
from serving.gateway.routes.predict import ANSWERING, PICTURE_ERRORS
from serving.gateway.settings import Settings
from serving.gateway.telemetry.metrics import Metrics
from serving.gateway.workers.pool import WorkPool
from serving.gateway.workers.shared import Shared
from serving.prepare import prepare

NOT_READY = 503
ASKED = (Unavailable, DeadlineExceeded, BadRequest)
SERVER = Operation("v2", Server, scope="predict")
LIVE = Operation("v2", Live, scope="predict")
READY = Operation("v2", ServerReady, scope="predict", statuses=(NOT_READY,), errors=ASKED)
MODELS = Operation("v2", ModelNames, scope="predict", errors=ASKED)
INDEX = Operation("v2", list[IndexEntry], scope="predict", errors=ASKED)
METADATA = Operation("v2", Metadata, scope="predict", errors=(*ASKED, *ANSWERING))
MODEL_READY = Operation("v2", ModelReady, scope="predict", statuses=(NOT_READY,), errors=(*ASKED, UnknownModel))
INFER = Operation(
    "v2",
    InferAnswer,
    (
        Parameter(HEADER_LENGTH, WHOLE, "Bytes of JSON before the binary tensors.", place="header"),
        TIMEOUT_HEADER,
    ),
    {"application/json": InferRequest, "application/octet-stream": BYTES},
    scope="predict",
    also=("application/octet-stream",),
    errors=(*ASKED, *ANSWERING, *BODY_ERRORS, *PICTURE_ERRORS),
)


def blueprint(predictor: Predictor, settings: Settings, metrics: Metrics, shared: Shared, pool: WorkPool) -> Blueprint:
    """Make the routes. pool: decodes large images and parses large JSON."""
    routes = Blueprint("v2", __name__, url_prefix="/v2")

    @routes.get("")
    @described(SERVER)
    def server() -> Server:
        """Return name, version and extensions."""
        return {"name": "sightline", "version": version_of_sightline(), "extensions": list(EXTENSIONS)}

    @routes.get("/health/live")
    @described(LIVE)
    def live() -> Live:
        """Answer 200 while the process lives."""
        return {"live": True}

    @routes.get("/health/ready")
    @described(READY)
    def ready() -> tuple[ServerReady, int]:
        """Answer 200 when every model is available or has failed, as /readyz does, else 503."""
        answers = not shared.is_draining and health.is_ready(health.readiness(predictor), settings)
        return {"ready": answers}, 200 if answers else NOT_READY

    @routes.get("/models")
    @described(MODELS)
    def models() -> ModelNames:
        """List the available models that classify images."""
        models = predictor.models().items()
        return {"models": [name for name, states in models if is_ready(states) and classifies(states) is not False]}

    @routes.post("/repository/index")
    @described(INDEX)
    def index() -> list[IndexEntry]:
        """List every version and its state, in Triton's terms."""
        return [
            {
                "name": name,
                "version": str(state.version),
                "state": "READY" if state.is_available else "UNAVAILABLE",
                "reason": state.error,
            }
            for name, states in predictor.models().items()
            for state in states
        ]

    @routes.get("/models/<name>")
    @routes.get("/models/<name>/versions/<version>")
    @described(METADATA)
    def metadata(name: str, version: str | None = None) -> Metadata:
        """Describe the model's input and output."""
        served = predictor.describe(ModelRef(name, read_version(version)))
        versions = [state.version for state in predictor.versions(name) if state.is_available]
        return model_metadata(name, versions, served.card)

    @routes.get("/models/<name>/ready")
    @routes.get("/models/<name>/versions/<version>/ready")
    @described(MODEL_READY)
    def model_ready(name: str, version: str | None = None) -> tuple[ModelReady, int]:
        """Answer 200 while the model or the version is available, else 503."""
        wanted = read_version(version)
        states = predictor.versions(name)
        answers = any(state.is_available and wanted in (None, state.version) for state in states)
        return {"name": name, "ready": answers}, 200 if answers else NOT_READY

    @routes.post("/models/<name>/infer")
    @routes.post("/models/<name>/versions/<version>/infer")
    @described(INFER)
    def infer(name: str, version: str | None = None) -> Response:
        """Run the model on a tensor or on image files. A bad image fails the request."""
        ref = ModelRef(name, read_version(version))
        g.model = ref
        call = read_call(request.headers, settings.backend_timeout_seconds, client_has_gone())
        executor, stages = pool.executor(call), g.stages
        served = predictor.describe(ref, call)
        with stages.timed("read"):
            body = read_body(request, executor)
            asked = read_inference(
                body,
                request.headers.get(HEADER_LENGTH),
                served.card,
                settings.max_images,
                limits=settings.json_limits,
                executor=executor,
            )

        def batch_of(card: ModelCard) -> Tensor:
            if asked.input.tensor is not None:
                return asked.input.tensor
            prepared = prepare(
                asked.input.pictures or (), card, settings.image_limits, stages=stages, call=call, executor=executor
            )
            bad = first_bad(prepared.errors)
            if bad is not None:
                raise bad
            return prepared.batch

        served, scores = scored(batch_of(served.card), batch_of, served, predictor, stages=g.stages, call=call)
        g.version = served.version
        failure = next((failure for failure in failures(scores, served.card) if failure is not None), None)
        if failure is not None:
            raise failure
        metrics.pictures(name, len(scores.probabilities), 0)
        with g.stages.timed("postprocess"):
            answer, headers = inference_answer(name, served.version, served.card, asked, scores.probabilities)
        return Response(answer, headers=headers)

    return routes
