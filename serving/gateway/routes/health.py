"""GET /healthz and GET /readyz: the process lives; it can answer."""

from typing import Any

from flask import Blueprint

from serving.backend.predictor import Predictor
from serving.contract.errors import ModelNotReady, Stopping, Unavailable
from serving.gateway.http.openapi import Operation, described
from serving.gateway.http.responses import is_ready
from serving.gateway.http.schemas import Health, Ready
from serving.gateway.workers.shared import Shared

ALIVE = Operation("service", Health, scope="open")
READY = Operation("service", Ready, errors=(Unavailable,), scope="open")


def blueprint(predictor: Predictor, shared: Shared) -> Blueprint:
    """The routes, with the predictor whose readiness they tell."""
    routes = Blueprint("health", __name__)

    @routes.get("/healthz")
    @described(ALIVE)
    def healthz() -> dict[str, Any]:
        """The process lives. Says nothing of the model server."""
        return {"status": "ok"}

    @routes.get("/readyz")
    @described(READY)
    def readyz() -> dict[str, Any]:
        """The model server is reached and a version of some model answers; else, and before a stop, 503: why."""
        if shared.is_draining:
            raise Stopping("the service is about to stop", hint="Ask another one.")
        models = predictor.models()
        ready = [name for name, states in models.items() if is_ready(states)]
        if not ready:
            known = f"not ready yet: {', '.join(models)}" if models else "the model server has no model"
            raise ModelNotReady(known, hint="Export one with `sightline export`, or look at GET /models.")
        return {"status": "ready", "models": ready}

    return routes
