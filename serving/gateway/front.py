"""Requests before Flask sees them: their id and target, and refusals that cost little while the process is full."""

import json
import logging
import os
import re
import time
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Any

from serving.contract.errors import Overloaded
from serving.contract.logs import FIELDS
from serving.gateway.access.in_flight import InFlight
from serving.gateway.http.errors import content_type, problem_of, status_of
from serving.gateway.telemetry.metrics import Metrics

PROBES = ("/healthz", "/readyz", "/metrics")  # polled every few seconds: answered even at the limit, not logged
HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
)
REQUEST_ID, REQUEST_ID_KEY = "X-Request-ID", "HTTP_X_REQUEST_ID"  # the header, and its key in WSGI's environment
ACCEPTED_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)  # ids that are safe to echo in headers and logs

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

log = logging.getLogger("serving.gateway.app")  # the requests' logger


def request_id_of(environ: Environ) -> str:
    """Return the client's id of a request, or a new one."""
    given = environ.get(REQUEST_ID_KEY)
    return given if given and ACCEPTED_ID.fullmatch(given) else os.urandom(16).hex()


class Front:
    """The WSGI application in front of another, `app`."""

    def __init__(self, app: Application, in_flight: InFlight, metrics: Metrics) -> None:
        self._app, self._in_flight, self._metrics = app, in_flight, metrics

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not environ.get("RAW_URI", "/").startswith("/"):
            _to_origin_form(environ)
        # Pages of other origins get their refusals from Flask, with the headers that let them read those.
        if self._in_flight.is_full and environ["PATH_INFO"] not in PROBES and "HTTP_ORIGIN" not in environ:
            started = time.perf_counter()
            error = self._in_flight.wait_for_refusal(environ.get("gunicorn.socket"))
            if error is not None:
                return self._refuse(error, environ, start_response, started)
        return self._app(environ, start_response)

    def _refuse(
        self, error: Overloaded, environ: Environ, start_response: Callable[..., Any], started: float
    ) -> list[bytes]:
        """Answer as the application would, and log and count the answer."""
        path, request_id, status = environ["PATH_INFO"], request_id_of(environ), status_of(error)
        body = json.dumps(problem_of(error, path, request_id)).encode()
        seconds = time.perf_counter() - started
        fields = {
            "request_id": request_id,
            "method": environ["REQUEST_METHOD"],
            "path": path.encode("ascii", "backslashreplace").decode(),
            "status": status,
            "code": error.code,
            "milliseconds": {"total": round(seconds * 1000, 1)},
        }
        log.info("request", extra={FIELDS: fields})
        self._metrics.request("", status, seconds, model="", version="", code=error.code)
        headers = [
            ("Content-Type", content_type(path)),
            ("Content-Length", str(len(body))),
            ("Retry-After", str(error.retry_after_seconds)),
            (REQUEST_ID, request_id),
            *HEADERS,
        ]
        start_response(f"{status} SERVICE UNAVAILABLE", headers)
        return [body]


def _to_origin_form(environ: Environ) -> None:
    """Turn the target `http://host/path` into `/path`; its host goes before the header's (RFC 9112, section 3.2.2)."""
    parts = urllib.parse.urlsplit(environ["RAW_URI"])
    if not parts.netloc:
        return  # OPTIONS *
    environ["HTTP_HOST"] = parts.netloc
    environ["PATH_INFO"] = environ["PATH_INFO"] or "/"
    environ["RAW_URI"] = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
