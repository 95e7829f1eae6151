"""GET /healthz and GET /readyz: the process lives; it can answer."""

from typing import Any

from flask import Blueprint

from serving.backend.predictor import Predictor
from serving.contract.errors import ModelNotReady
from serving.gateway.responses import AVAILABLE


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
        names = predictor.model_names()
        ready = [name for name in names if _is_ready(name)]
        if not ready:
            known = f"models {', '.join(names)} are not ready" if names else "the model server has no model"
            raise ModelNotReady(known, hint="Export one with `sightline export`, or look at GET /models.")
        return {"status": "ready", "models": ready}

    def _is_ready(name: str) -> bool:
        return any(state.state == AVAILABLE for state in predictor.versions(name))

    return routes
