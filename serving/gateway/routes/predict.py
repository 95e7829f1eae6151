"""POST /predict/{model}: classify images."""

from pathlib import Path

from flask import Blueprint, g, request

from serving.backend.predictor import Predictor
from serving.classify import classify
from serving.contract.errors import (
    BadImage,
    DeadlineExceeded,
    ImageTooLarge,
    ModelError,
    ModelNotReady,
    NotAClassifier,
    NotAnImage,
    TooManyImages,
    TooManyPixels,
    Unavailable,
    UnknownModel,
    UnknownVersion,
)
from serving.contract.exports import read_states
from serving.contract.prediction import Prediction
from serving.gateway.guard import client_has_gone
from serving.gateway.http.openapi import Operation, described
from serving.gateway.http.requests import (
    BODY_ERRORS,
    PICTURES,
    QUERY,
    TIMEOUT_HEADER,
    read_all_probabilities,
    read_call,
    read_min_score,
    read_model_ref,
    read_top,
    read_uploads,
    read_with_inputs,
)
from serving.gateway.http.responses import predictions_body
from serving.gateway.http.schemas import Predictions
from serving.gateway.settings import Settings
from serving.gateway.telemetry.metrics import Metrics
from serving.gateway.workers.pool import WorkPool

ANSWERING = (Unavailable, DeadlineExceeded, ModelError, UnknownModel, UnknownVersion, NotAClassifier)
PICTURE_ERRORS = (BadImage, ImageTooLarge, NotAnImage, TooManyPixels, TooManyImages)
PREDICT = Operation(
    "predict",
    Predictions,
    (*QUERY, TIMEOUT_HEADER),
    PICTURES,
    scope="predict",
    errors=(*ANSWERING, *BODY_ERRORS, *PICTURE_ERRORS),
)


def blueprint(predictor: Predictor, settings: Settings, metrics: Metrics, pool: WorkPool) -> Blueprint:
    """Make the route. pool: decodes large images."""
    routes = Blueprint("predict", __name__)

    @routes.post("/predict/<model>")
    @described(PREDICT)
    def predict(model: str) -> Predictions:
        """Classify the images of the request. A single bad image is an error; one of several becomes an entry."""
        args = request.args
        ref, top = read_model_ref(model, args), read_top(args)
        min_score, all_probabilities = read_min_score(args), read_all_probabilities(args)
        with_inputs = read_with_inputs(args)
        g.model = ref
        call = read_call(request.headers, settings.backend_timeout_seconds, client_has_gone())
        executor = pool.executor(call)
        with g.stages.timed("read"):
            uploads = read_uploads(request, settings.max_images, settings.json_limits, executor)
        try:
            classified = classify(
                [upload.data for upload in uploads],
                ref,
                predictor,
                limits=settings.image_limits,
                top=top,
                stages=g.stages,
                call=call,
                all_probabilities=all_probabilities,
                with_inputs=with_inputs,
                executor=executor,
            )
        except UnknownModel:
            _refuse_for_now(ref.name, settings.exports_folder)
            raise
        first = classified.outcomes[0]
        if len(uploads) == 1 and not isinstance(first, Prediction):
            raise first
        g.version = classified.served.version
        refused = sum(not isinstance(outcome, Prediction) for outcome in classified.outcomes)
        metrics.pictures(ref.name, len(uploads) - refused, refused)
        with g.stages.timed("postprocess"):
            return predictions_body(classified, uploads, g.request_id, min_score)

    return routes


def _refuse_for_now(model: str, exports: Path | None) -> None:
    """Raise ModelNotReady where the model is not there because its export still runs beside the service."""
    for state in read_states(exports):
        if state.model == model and state.state != "failed":
            raise ModelNotReady(f"The model {model!r} is being exported: {state}.", hint="Try again in some seconds.")
