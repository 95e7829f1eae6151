"""The gateway's Flask application."""

import logging
import time
import urllib.parse
from collections.abc import Callable
from json import JSONEncoder
from typing import Any, NoReturn

from flask import Flask, Request, Response, g, request
from flask.json.provider import DefaultJSONProvider
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import RequestRedirect

from serving.backend.predictor import Call, Predictor
from serving.contract.logs import FIELDS
from serving.faces.recognition import Faces
from serving.gateway.access.in_flight import InFlight
from serving.gateway.front import PROBES, REQUEST_ID, Front, request_id_of
from serving.gateway.guard import ReceivedRequest, guard, hold_place
from serving.gateway.http import errors
from serving.gateway.http.pretty import indent_for_people
from serving.gateway.http.proxies import behind_proxies
from serving.gateway.routes import docs, faces, health, models, page, predict, v1, v2
from serving.gateway.routes import metrics as metrics_route
from serving.gateway.settings import Settings
from serving.gateway.telemetry.metrics import Metrics
from serving.gateway.telemetry.tracing import SpannedStages, Tracing
from serving.gateway.workers.greenlets import pause
from serving.gateway.workers.memory import FreedMemory
from serving.gateway.workers.pool import WorkPool
from serving.gateway.workers.shared import Shared
from serving.prepare import Stages
from serving.tfserving_rest import Backend

log = logging.getLogger(__name__)

BAD_REQUEST = 400


class Json(DefaultJSONProvider):
    """Flask's provider with one encoder for all answers instead of one per answer."""

    sort_keys = False
    compact = True
    ENCODER = JSONEncoder(separators=(",", ":"), default=DefaultJSONProvider.default)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        body = self.ENCODER.encode(self._prepare_response_obj(args, kwargs))
        return Response(f"{body}\n", mimetype=self.mimetype)


class NoSessions(SessionInterface):
    """No sessions: Flask's own interface makes one for each request even if nothing uses it."""

    NONE = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:  # noqa: ARG002
        return self.NONE

    def is_null_session(self, obj: object) -> bool:
        return obj is self.NONE


class Application(Flask):
    """Flask without its per-request work that no route here needs."""

    json_provider_class = Json
    session_interface = NoSessions()
    request_class = ReceivedRequest

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function unchanged: Flask would check at every call of every request whether it is a coroutine."""
        return func

    def raise_routing_exception(self, request: Request) -> NoReturn:
        """Redirect to a path: a whole URL would hold a host that the client has made up."""
        exc = request.routing_exception
        if isinstance(exc, RequestRedirect):
            parts = urllib.parse.urlsplit(exc.new_url)
            path = f"/{parts.path.lstrip('/')}"
            exc.new_url = urllib.parse.urlunsplit(("", "", path, parts.query, ""))
        super().raise_routing_exception(request)


def create_app(
    settings: Settings,
    predictor: Predictor,
    people: Faces | None = None,
    metrics: Metrics | None = None,
    backend: Callable[[Call], Backend] | None = None,
    *,
    tracing: Tracing | None = None,
    shared: Shared | None = None,
) -> Flask:
    """Build the application: limits, errors, one log line per request, and the routes.

    people: the face service's client; None where no face service runs, and /faces answers 503.
    metrics: given where code outside the application counts, too.
    backend: makes the backend of /v1 for one request; without it there is no /v1.
    tracing: receives a span for each request; None: no traces.
    shared: state that the processes of one gunicorn share.
    """
    metrics = metrics or Metrics()
    app = Application("sightline", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_request_bytes
    if settings.trusted_proxies:
        app.wsgi_app = behind_proxies(app.wsgi_app, settings.trusted_proxies)  # type: ignore[method-assign]
    errors.register(app)
    indent_for_people(app)
    _watch(app, metrics, tracing)
    shared = shared or Shared()
    in_flight = InFlight(shared, settings.threads, settings.max_in_flight, pause())
    app.wsgi_app = Front(app.wsgi_app, in_flight, metrics)  # type: ignore[method-assign]
    freed = FreedMemory()
    guard(app, settings, shared, in_flight, freed)
    pool = WorkPool(settings.decoding_threads, settings.decode_queue, settings.max_decode_bytes, hold_place, freed)
    app.register_blueprint(predict.blueprint(predictor, settings, metrics, pool))
    app.register_blueprint(v2.blueprint(predictor, settings, metrics, shared, pool))
    if backend is not None:
        app.register_blueprint(v1.blueprint(backend, settings, pool))
    app.register_blueprint(models.blueprint(predictor, settings))
    app.register_blueprint(faces.blueprint(people, settings, pool))
    app.register_blueprint(health.blueprint(predictor, settings, shared))
    app.register_blueprint(page.blueprint(settings, has_faces=people is not None))
    app.register_blueprint(docs.blueprint(has_keys=settings.has_keys))
    app.register_blueprint(metrics_route.blueprint(metrics))
    return app


def _watch(app: Flask, metrics: Metrics, tracing: Tracing | None) -> None:
    """Give each request an id and a clock; log and count it after its answer."""

    @app.before_request
    def begin() -> None:
        state = request_state()
        state.request_id = request_id_of(request.environ)
        state.started = time.perf_counter()
        state.stages = Stages() if tracing is None else SpannedStages()
        if tracing is not None and request.path not in PROBES:
            state.span = tracing.begin(request)
        metrics.begin()

    @app.after_request
    def end(response: Response) -> Response:
        state = request_state()
        spent = state.stages.milliseconds
        response.headers[REQUEST_ID] = state.request_id
        if spent:
            response.headers["Server-Timing"] = ", ".join([f"{name};dur={value:.1f}" for name, value in spent.items()])
        seconds = time.perf_counter() - state.started
        _log_request(state, response.status_code, seconds)
        _count_request(state, response.status_code, seconds, metrics)
        if tracing is not None and "span" in state:
            tracing.end(state.span, _attributes(state, response.status_code), state.stages)
        return response

    @app.teardown_request
    def done(exc: BaseException | None) -> None:  # noqa: ARG001
        if "started" in g:
            metrics.end()


def request_state() -> Any:
    """Return `g` itself: its proxy looks it up again at every attribute."""
    return g._get_current_object()


def _log_request(state: Any, status: int, seconds: float) -> None:
    """Log one line: id, method, path, status, key, model, version, the error's code, milliseconds."""
    level = logging.DEBUG if request.path in PROBES else logging.INFO
    if not log.isEnabledFor(level):
        return
    error = state.get("error")
    fields = {
        "request_id": state.request_id,
        "method": request.method,
        "path": _loggable_path(),
        "status": status,
        "key": state.get("key"),
        "model": str(state.model) if "model" in state else None,
        "version": state.get("version"),
        "code": error.code if error else None,
        "milliseconds": {
            "total": round(seconds * 1000, 1),
            **{name: round(spent, 1) for name, spent in state.stages.milliseconds.items()},
        },
    }
    present = {name: value for name, value in fields.items() if value is not None}
    log.log(level, "request", extra={FIELDS: present})


def _count_request(state: Any, status: int, seconds: float, metrics: Metrics) -> None:
    """Count a request. Only served names become labels: invented ones would fill the memory."""
    model, version = (state.model.name, str(state.version)) if "version" in state else ("", "")
    error = state.get("error")
    rule = request.url_rule
    endpoint = rule.rule if rule is not None else ""
    metrics.request(endpoint, status, seconds, model=model, version=version, code=error.code if error else None)
    if status < BAD_REQUEST:
        metrics.stages(model, state.stages.milliseconds)


def _attributes(state: Any, status: int) -> dict[str, Any]:
    """Return a span's attributes. The route instead of the path, which may hold a person's name."""
    error, rule = state.get("error"), request.url_rule
    return {
        "method": request.method,
        "route": rule.rule if rule is not None else "",
        "status": status,
        "request_id": state.request_id,
        "model": state.model.name if "version" in state else None,
        "version": str(state.version) if "version" in state else None,
        "code": error.code if error else None,
    }


def _loggable_path() -> str:
    """Return the path in ASCII, without a person's name."""
    rule = request.url_rule
    path = (
        rule.rule if rule is not None and "name" in rule.arguments and rule.rule.startswith("/faces") else request.path
    )
    return path.encode("ascii", "backslashreplace").decode()
