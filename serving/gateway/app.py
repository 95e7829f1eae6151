"""The gateway's Flask application."""

import logging
import re
import time
import uuid

from flask import Flask, Response, g, request

from serving.backend.predictor import Predictor
from serving.classify import Stages
from serving.faces.recognition import Faces
from serving.gateway import errors
from serving.gateway.routes import faces, health, models, predict
from serving.gateway.settings import Settings

log = logging.getLogger(__name__)

REQUEST_ID = "X-Request-ID"
PROBES = ("/healthz", "/readyz")  # asked every few seconds by whoever runs us: not worth a line each
ACCEPTED_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)  # what is echoed into headers and logs


def create_app(settings: Settings, predictor: Predictor, people: Faces | None = None) -> Flask:
    """Build the application: limits, errors, one line of log for each request, and the routes.

    people: what /faces asks; None where no face service runs, which is then what /faces answers.
    """
    app = Flask("sightline", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_request_bytes
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.json.compact = True  # type: ignore[attr-defined]
    errors.register(app)
    app.before_request(_begin)
    app.after_request(_end)
    app.register_blueprint(predict.blueprint(predictor, settings))
    app.register_blueprint(models.blueprint(predictor))
    app.register_blueprint(faces.blueprint(people, settings))
    app.register_blueprint(health.blueprint(predictor))
    return app


def _begin() -> None:
    given = request.headers.get(REQUEST_ID, "")
    g.request_id = given if ACCEPTED_ID.fullmatch(given) else uuid.uuid4().hex
    g.started = time.perf_counter()
    g.stages = Stages()


def _end(response: Response) -> Response:
    response.headers[REQUEST_ID] = g.request_id
    _log_request(response)
    return response


def _log_request(response: Response) -> None:
    """One line for each request: id, method, path, status, model and version, the error's code, milliseconds."""
    spent = (time.perf_counter() - g.started) * 1000
    error = g.get("error")
    stages = " ".join(f"{name}={ms:.1f}" for name, ms in g.stages.milliseconds.items())
    level = logging.DEBUG if request.path in PROBES else logging.INFO
    log.log(
        level,
        "%s %s %s %d model=%s version=%s code=%s total=%.1f %s",
        g.request_id,
        request.method,
        _loggable_path(),
        response.status_code,
        g.get("model", "-"),
        g.get("version", "-"),
        error.code if error else "-",
        spent,
        stages,
    )


def _loggable_path() -> str:
    """The path in ASCII; the name of a person stays out of it."""
    rule = request.url_rule
    path = (
        rule.rule if rule is not None and "name" in rule.arguments and rule.rule.startswith("/faces") else request.path
    )
    return path.encode("ascii", "backslashreplace").decode()
