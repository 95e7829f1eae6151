"""GET /healthz and GET /readyz: liveness and readiness."""

from collections.abc import Sequence
from pathlib import Path

from flask import Blueprint

from serving.backend.predictor import Predictor
from serving.contract.errors import ModelNotReady, Stopping, Unavailable
from serving.contract.exports import ExportState, read_states
from serving.gateway.http.openapi import Operation, described
from serving.gateway.http.responses import is_ready
from serving.gateway.http.schemas import Export, Health, Ready
from serving.gateway.workers.shared import Shared

ALIVE = Operation("service", Health, scope="open")
READY = Operation("service", Ready, errors=(Unavailable,), scope="open")


def blueprint(predictor: Predictor, shared: Shared, exports: Path | None = None) -> Blueprint:
    """Make the routes. exports: the folder in which exports beside the service tell how far they are."""
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
        states = [state for state in read_states(exports) if state.model not in ready]
        if not ready:
            raise _not_ready(list(models), states)
        answer: Ready = {"status": "ready", "models": ready}
        if states:
            answer["exports"] = [_export(state) for state in states]
        return answer

    return routes


def _export(state: ExportState) -> Export:
    return {"model": state.model, "state": state.state, "detail": state.detail, "progress": state.progress}


def _not_ready(models: Sequence[str], exports: Sequence[ExportState]) -> ModelNotReady:
    if any(state.state != "failed" for state in exports):
        return ModelNotReady(
            f"The first models are being exported: {', '.join(map(str, exports))}.", hint="Try again in some seconds."
        )
    known = f"No model is ready yet: {', '.join(models)}." if models else "The model server has no model."
    return ModelNotReady(known, hint="Export one with `sightline export`, or see GET /models.")
