"""GET /healthz and GET /readyz: liveness and readiness."""

import time
from collections.abc import Sequence

from flask import Blueprint

from serving.backend.predictor import Call, Predictor, Readiness
from serving.contract.errors import DeadlineExceeded, ModelNotReady, ModelServerUnavailable, Stopping, Unavailable
from serving.contract.exports import ExportState, read_states
from serving.gateway.http.openapi import Operation, described
from serving.gateway.http.schemas import Export, FailedVersion, Health, Ready
from serving.gateway.settings import Settings
from serving.gateway.workers.shared import Shared

PROBE_SECONDS = 0.8  # a prober waits a second
ALIVE = Operation("service", Health, scope="open")
READY = Operation("service", Ready, errors=(Unavailable,), scope="open")


def blueprint(predictor: Predictor, settings: Settings, shared: Shared) -> Blueprint:
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
        """Answer 200 when every model is available or has failed; before, and before a stop, 503 with the reason."""
        if shared.is_draining:
            raise Stopping("The service is about to stop.", hint="Use another instance.")
        told = readiness(predictor)
        exports = [state for state in read_states(settings.exports_folder) if state.model not in told.available]
        if not is_ready(told, settings):
            raise _not_ready(told, exports)
        answer: Ready = {"status": "ready", "models": list(told.available), "failed": _failed(told)}
        if exports:
            answer["exports"] = [_export(state) for state in exports]
        return answer

    return routes


def readiness(predictor: Predictor) -> Readiness:
    """Ask for the readiness within PROBE_SECONDS. Raises ModelServerUnavailable where no answer comes in time."""
    try:
        return predictor.readiness(Call(time.monotonic() + PROBE_SECONDS))
    except DeadlineExceeded as exc:
        raise ModelServerUnavailable(
            f"The model server has not answered within {PROBE_SECONDS:g} s.", hint="Try again in a moment."
        ) from exc


def is_ready(told: Readiness, settings: Settings) -> bool:
    """Judge as `ready_when` says. Without any available model the service is not ready."""
    return bool(told.available) and (settings.ready_when == "any" or not told.loading)


def _not_ready(told: Readiness, exports: Sequence[ExportState]) -> ModelNotReady:
    if not told.available and not told.loading and any(state.state != "failed" for state in exports):
        return ModelNotReady(
            f"The first models are being exported: {', '.join(map(str, exports))}.", hint="Try again in some seconds."
        )
    parts = [f"Still loading: {', '.join(map(str, told.loading))}."] if told.loading else []
    parts += [f"Failed: {ref}: {error.removesuffix('.')}." for ref, error in told.failed]
    return ModelNotReady(
        " ".join(parts) or "The model server has no model.",
        hint="Wait, or see GET /models. `sightline export` makes models.",
    )


def _failed(told: Readiness) -> list[FailedVersion]:
    return [{"model": ref.name, "version": ref.version or 0, "error": error} for ref, error in told.failed]


def _export(state: ExportState) -> Export:
    return {"model": state.model, "state": state.state, "detail": state.detail, "progress": state.progress}
