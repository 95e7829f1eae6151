"""Answers about models and predictions as JSON. Add a field of an answer here and in `schemas`."""

import base64
import io
from collections.abc import Sequence

from PIL import Image

from serving.backend.predictor import ServedModel, VersionState
from serving.classify import Classified
from serving.contract.errors import SightlineError
from serving.contract.image import Pixels
from serving.contract.prediction import Label, Prediction
from serving.gateway.http import schemas
from serving.gateway.http.errors import error_fields
from serving.gateway.http.requests import Upload


def predictions_body(
    classified: Classified, uploads: Sequence[Upload], request_id: str, min_score: float = 0.0
) -> schemas.Predictions:
    """Build the answer of POST /predict/{model}: one entry per image, in the order of the request.

    min_score: a prediction with a lower score gets no label.
    """
    inputs = classified.inputs or (None,) * len(uploads)
    return {
        "model": classified.served.ref.name,
        "version": classified.served.version,
        "predictions": [
            _predicted(upload.name, outcome, pixels, min_score)
            if isinstance(outcome, Prediction)
            else _refused(upload.name, outcome)
            for upload, outcome, pixels in zip(uploads, classified.outcomes, inputs, strict=True)
        ],
        "request_id": request_id,
    }


def is_ready(states: Sequence[VersionState]) -> bool:
    """Some version of the model is available."""
    return any(state.is_available for state in states)


def classifies(states: Sequence[VersionState]) -> bool | None:
    """Some available version has a card; None where that is not known."""
    known = [state.classifies for state in states if state.classifies is not None]
    return any(known) if known else None


def model_body(name: str, states: Sequence[VersionState]) -> schemas.Model:
    """Build one entry of GET /models."""
    return {
        "name": name,
        "ready": is_ready(states),
        "classifies": classifies(states),
        "versions": [_version(state) for state in states],
    }


def description_body(model: schemas.Model, served: ServedModel | None) -> schemas.Description:
    """Build the answer of GET /models/{model}. served: the version that answers; None where none has a card."""
    if served is None:
        return {**model, "version": None, "card": None}
    return {**model, "version": served.version, "card": served.card}


def _version(state: VersionState) -> schemas.Version:
    version: schemas.Version = {"version": state.version, "state": state.state, "proven": None}
    if state.error:
        version["error"] = state.error
    if state.unproven is not None:
        version["proven"] = not state.unproven
    if state.unproven:
        version["unproven"] = state.unproven
    return version


def _refused(name: str, error: SightlineError) -> schemas.Refused:
    return {"name": name, "error": error_fields(error)}


def _predicted(name: str, outcome: Prediction, pixels: Pixels | None, min_score: float) -> schemas.Predicted:
    reason = outcome.reason_for_no_label(min_score)
    label = outcome.label if reason is None else None
    answer: schemas.Predicted
    if outcome.id is None:
        top: list[schemas.Top] = [
            {"label": best.label, "index": best.index, "score": best.score} for best in outcome.top
        ]
        answer = {"name": name, "label": label, "score": outcome.score, "top": top}
    else:
        answer = {
            "name": name,
            "label": label,
            "id": None if label is None else outcome.id,
            "score": outcome.score,
            "top": [_top_with_id(best) for best in outcome.top],
        }
    if reason is not None:
        answer["reason"] = reason
    if outcome.raw_score is not None:
        answer["raw_score"] = outcome.raw_score
    if outcome.probabilities is not None:
        answer["probabilities"] = list(outcome.probabilities)
    if pixels is not None:
        answer["input"] = _data_url(pixels)
    return answer


def _top_with_id(best: Label) -> schemas.Top:
    return {"label": best.label, "id": best.id or "", "index": best.index, "score": best.score}


def _data_url(pixels: Pixels) -> str:
    """Encode the model's input as a PNG in a data URL. pixels: uint8 (h, w, c), c of 1 or 3."""
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
