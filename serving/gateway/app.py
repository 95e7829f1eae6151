"""The gateway's Flask application."""

import logging
import re
import time
import uuid
from collections.abc import Callable

from flask import Flask, Response, g, request
from werkzeug.middleware.proxy_fix import ProxyFix

from serving.backend.predictor import Call, Predictor
from serving.classify import Stages
from serving.faces.recognition import Faces
from serving.gateway import errors
from serving.gateway.guard import guard
from serving.gateway.logs import FIELDS
from serving.gateway.metrics import Metrics
from serving.gateway.routes import faces, health, models, page, predict, v1, v2
from serving.gateway.routes import metrics as metrics_route
from serving.gateway.settings import Settings
from serving.tfserving_rest import Backend

log = logging.getLogger(__name__)

REQUEST_ID = "X-Request-ID"
PROBES = ("/healthz", "/readyz", "/metrics")  # asked every few seconds by whoever runs us: not worth a line each
BAD_REQUEST = 400
ACCEPTED_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)  # what is echoed into headers and logs


def create_app(
    settings: Settings,
    predictor: Predictor,
    people: Faces | None = None,
    metrics: Metrics | None = None,
    backend: Callable[[Call], Backend] | None = None,
) -> Flask:
    """Build the application: limits, errors, one line of log for each request, and the routes.

    people: what /faces asks; None where no face service runs, which is then what /faces answers.
    metrics: what is counted into, where somebody outside the application counts too.
    backend: what makes what /v1 asks, for each request; without it there is no /v1.
    """
    metrics = metrics or Metrics()
    app = Flask("sightline", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_request_bytes
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.json.compact = True  # type: ignore[attr-defined]
    if settings.trusted_proxies:
        proxies = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies)  # type: ignore[method-assign]
    errors.register(app)
    _watch(app, metrics)
    guard(app, settings)
    app.register_blueprint(predict.blueprint(predictor, settings, metrics))
    app.register_blueprint(v2.blueprint(predictor, settings, metrics))
    if backend is not None:
        app.register_blueprint(v1.blueprint(backend, settings))
    app.register_blueprint(models.blueprint(predictor))
    app.register_blueprint(faces.blueprint(people, settings))
    app.register_blueprint(health.blueprint(predictor))
    app.register_blueprint(page.blueprint())
    app.register_blueprint(metrics_route.blueprint(metrics))
    return app


def _watch(app: Flask, metrics: Metrics) -> None:
    """Give each request an id and a clock; log and count it when it has been answered."""

    @app.before_request
    def begin() -> None:
        given = request.headers.get(REQUEST_ID, "")
        g.request_id = given if ACCEPTED_ID.fullmatch(given) else uuid.uuid4().hex
        g.started = time.perf_counter()
        g.stages = Stages()
        metrics.begin()

    @app.after_request
    def end(response: Response) -> Response:
        response.headers[REQUEST_ID] = g.request_id
        if g.stages.milliseconds:
            stages = (f"{name};dur={spent:.1f}" for name, spent in g.stages.milliseconds.items())
            response.headers["Server-Timing"] = ", ".join(stages)
        seconds = time.perf_counter() - g.started
        _log_request(response, seconds)
        _count_request(response, seconds, metrics)
        return response

    @app.teardown_request
    def done(exc: BaseException | None) -> None:  # noqa: ARG001
        if "started" in g:
            metrics.end()


def _log_request(response: Response, seconds: float) -> None:
    """One line for each request: id, method, path, status, model and version, the error's code, milliseconds."""
    error = g.get("error")
    fields = {
        "request_id": g.request_id,
        "method": request.method,
        "path": _loggable_path(),
        "status": response.status_code,
        "key": g.get("key"),
        "model": str(g.model) if "model" in g else None,
        "version": g.get("version"),
        "code": error.code if error else None,
        "milliseconds": {
            "total": round(seconds * 1000, 1),
            **{name: round(spent, 1) for name, spent in g.stages.milliseconds.items()},
        },
    }
    level = logging.DEBUG if request.path in PROBES else logging.INFO
    present = {name: value for name, value in fields.items() if value is not None}
    log.log(level, "request", extra={FIELDS: present})


def _count_request(response: Response, seconds: float, metrics: Metrics) -> None:
    """Only names that are served become labels: what a client makes up must not fill the memory."""
    answered = "version" in g
    model, version = (g.model.name, str(g.version)) if answered else ("", "")
    error = g.get("error")
    endpoint = request.url_rule.rule if request.url_rule is not None else ""
    code = error.code if error else None
    metrics.request(endpoint, response.status_code, seconds, model=model, version=version, code=code)
    if response.status_code < BAD_REQUEST:
        metrics.stages(model, g.stages.milliseconds)


def _loggable_path() -> str:
    """The path in ASCII; the name of a person stays out of it."""
    rule = request.url_rule
    path = (
        rule.rule if rule is not None and "name" in rule.arguments and rule.rule.startswith("/faces") else request.path
    )
    return path.encode("ascii", "backslashreplace").decode()
