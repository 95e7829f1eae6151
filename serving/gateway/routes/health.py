"""GET /healthz and GET /readyz: the process lives; it can answer."""

from typing import Any

from flask import Blueprint

from serving.backend.predictor import Predictor
from serving.contract.errors import ModelNotReady
from serving.gateway.responses import is_ready


def blueprint(predictor: Predictor) -> Blueprint:
    """The routes, with the predictor whose readiness they tell."""
    routes = Blueprint("health", __name__)

    @routes.get("/healthz")
    def healthz() -> dict[str, Any]:
        """The process lives. Says nothing of the model server."""
        return {"status": "ok"}

    @routes.get("/readyz")
    def readyz() -> dict[str, Any]:
        """The model server is reached and a version of some model answers; otherwise 503 with the reason."""
        models = predictor.models()
        ready = [name for name, states in models.items() if is_ready(states)]
        if not ready:
            known = f"not ready yet: {', '.join(models)}" if models else "the model server has no model"
            raise ModelNotReady(known, hint="Export one with `sightline export`, or look at GET /models.")
        return {"status": "ready", "models": ready}

    return routes
