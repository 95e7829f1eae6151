"""GET /models and GET /models/{model}: what is served."""

from typing import Any

from flask import Blueprint

from serving.backend.predictor import ModelRef, Predictor
from serving.contract.errors import DeadlineExceeded, ModelError, NotAClassifier, Unavailable, UnknownModel
from serving.gateway.http.openapi import Operation, described
from serving.gateway.http.responses import card_body, model_body
from serving.gateway.http.schemas import Description, Models

ASKED = (Unavailable, DeadlineExceeded)
LIST = Operation("models", Models, scope="predict", errors=ASKED)
DESCRIBE = Operation("models", Description, scope="predict", errors=(*ASKED, UnknownModel, ModelError))


def blueprint(predictor: Predictor) -> Blueprint:
    """The routes, with the predictor that they ask."""
    routes = Blueprint("models", __name__)

    @routes.get("/models")
    @described(LIST)
    def models() -> dict[str, Any]:
        """Every model, its versions and their states."""
        bodies = [model_body(name, states) for name, states in predictor.models().items()]
        return {"models": bodies}

    @routes.get("/models/<name>")
    @described(DESCRIBE)
    def model(name: str) -> dict[str, Any]:
        """One model, with the card of the version that answers; card is null where none does or has one."""
        body = model_body(name, predictor.versions(name))
        nothing = {**body, "version": None, "card": None}
        if not body["ready"]:
            return nothing
        try:
            served = predictor.describe(ModelRef(name))
        except NotAClassifier:  # such as the face encoder
            return nothing
        return {**body, **card_body(served.version, served.card)}

    return routes
