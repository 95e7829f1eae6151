"""GET /healthz and GET /readyz: liveness and readiness."""

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
    """Make the routes."""
    routes = Blueprint("health", __name__)

    @routes.get("/healthz")
    @described(ALIVE)
    def healthz() -> Health:
        """Answer 200 while the process lives, whatever the state of the model server."""
        return {"status": "ok"}

    @routes.get("/readyz")
    @described(READY)
    def readyz() -> Ready:
        """Answer 200 while some model is available; otherwise, and before a stop, 503 with the reason."""
        if shared.is_draining:
            raise Stopping("The service is about to stop.", hint="Use another instance.")
        models = predictor.models()
        ready = [name for name, states in models.items() if is_ready(states)]
        if not ready:
            known = f"No model is ready yet: {', '.join(models)}." if models else "The model server has no model."
            raise ModelNotReady(known, hint="Export one with `sightline export`, or see GET /models.")
        return {"status": "ready", "models": ready}

    return routes
