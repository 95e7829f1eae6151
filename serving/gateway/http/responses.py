"""Answers: the one place where a prediction or a model becomes JSON. Add a field of the answer here."""

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from serving.backend.predictor import VersionState
from serving.classify import Classified
from serving.contract.card import ModelCard, card_to_dict
from serving.contract.errors import BadImage
from serving.contract.image import Pixels
from serving.contract.prediction import Prediction
from serving.gateway.http.errors import error_fields
from serving.gateway.http.requests import Upload


def predictions_body(
    classified: Classified, uploads: Sequence[Upload], request_id: str, min_score: float = 0.0
) -> dict[str, Any]:
    """The answer of POST /predict/{model}: an entry for each picture, in the order of the request.

    min_score: a prediction whose score is below it has no label.
    """
    inputs = classified.inputs or (None,) * len(uploads)
    return {
        "model": classified.served.ref.name,
        "version": classified.served.version,
        "predictions": [
            {"name": upload.name, **_outcome(outcome, min_score), **_input(pixels)}
            for upload, outcome, pixels in zip(uploads, classified.outcomes, inputs, strict=True)
        ],
        "request_id": request_id,
    }


def is_ready(states: Sequence[VersionState]) -> bool:
    """Some version of a model answers."""
    return any(state.is_available for state in states)


def model_body(name: str, states: Sequence[VersionState]) -> dict[str, Any]:
    """One entry of GET /models. ready: a version of it answers."""
    versions = [
        {"version": state.version, "state": state.state, **({"error": state.error} if state.error else {})}
        for state in states
    ]
    return {"name": name, "ready": is_ready(states), "versions": versions}


def card_body(version: int, card: ModelCard) -> dict[str, Any]:
    """What GET /models/{model} adds: the card, and the version that it is of."""
    return {"version": version, "card": card_to_dict(card)}


def _outcome(outcome: Prediction | BadImage, min_score: float) -> dict[str, Any]:
    if isinstance(outcome, BadImage):
        return {"error": error_fields(outcome)}
    reason = outcome.reason_for_no_label(min_score)
    return {
        **({"label": outcome.label} if reason is None else {"label": None, "reason": reason}),
        "score": outcome.score,
        **({} if outcome.raw_score is None else {"raw_score": outcome.raw_score}),
        "top": [{"label": best.label, "index": best.index, "score": best.score} for best in outcome.top],
        **({} if outcome.probabilities is None else {"probabilities": outcome.probabilities}),
    }


def _input(pixels: Pixels | None) -> dict[str, str]:
    """What the model saw, as a PNG in a data URL. pixels: uint8 (h, w, c), c of 1 or 3."""
    if pixels is None:
        return {}
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG", compress_level=1)
    return {"input": f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"}
