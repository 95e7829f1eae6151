"""What stands before every route: API keys, rate limits, a bound of requests in flight, CORS, headers for browsers."""

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import Flask, Request, Response, g, request

from serving.contract.errors import UploadTooSlow
from serving.gateway.access.in_flight import InFlight, Slot
from serving.gateway.access.keys import KeyRing, authenticate, authorize, scope_of
from serving.gateway.settings import Settings
from serving.gateway.workers.greenlets import time_limit
from serving.gateway.workers.shared import Shared

if TYPE_CHECKING:
    from serving.gateway.access.rates import RateLimit

OPEN = ("/healthz", "/readyz", "/", "/openapi.json", "/docs")  # no key is needed
WITH_BODY = ("POST", "PUT", "PATCH", "DELETE")
UNBOUNDED = ("/healthz", "/readyz", "/metrics")  # answered even when the service is full
ALLOWED_HEADERS = "Authorization, Content-Type, X-Request-ID, X-Request-Timeout, traceparent, tracestate"
EXPOSED_HEADERS = "X-Request-ID, Retry-After"
PREFLIGHT_SECONDS = "600"
POLICY = "Content-Security-Policy"  # a page has its own
HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    (POLICY, "default-src 'none'; frame-ancestors 'none'"),
)


def guard(app: Flask, settings: Settings, shared: Shared) -> None:
    """Refuse what is too much and who may not. Register it after what gives a request its id."""
    ring = KeyRing(settings.api_key_entries, settings.key_file, lambda: shared.generation)
    rates = _rate_limit(settings)
    in_flight = InFlight(shared, settings.threads, settings.max_in_flight)

    @app.before_request
    def admit() -> Response | None:
        asked: Request = request._get_current_object()  # type: ignore[attr-defined]
        if _is_preflight(asked):
            return Response(status=204)
        keys = ring.current()
        if keys and asked.path not in OPEN:
            key = authenticate(keys, asked.headers.get("Authorization", ""))
            g.key = key.name
            scope = scope_of(asked.method, asked.path)
            if scope is not None:
                authorize(key, scope)
        if asked.path not in UNBOUNDED:
            if rates is not None:
                rates.spend(f"key {g.key}" if "key" in g else f"address {asked.remote_addr}")
            if asked.method in WITH_BODY:
                _receive(asked, settings.upload_seconds)
            g.slot = in_flight.enter(asked.environ.get("gunicorn.socket"))
        return None

    @app.teardown_request
    def leave(exc: BaseException | None) -> None:  # noqa: ARG001
        slot = g.pop("slot", None)
        if slot is not None:
            in_flight.leave(slot)

    @app.after_request
    def label(response: Response) -> Response:
        response.headers.extend(HEADERS if POLICY not in response.headers else HEADERS[:-1])
        _share(response, settings.allowed_origins)
        return response


def _rate_limit(settings: Settings) -> "RateLimit | None":
    if not settings.rate_limit:
        return None
    from serving.gateway.access.rates import RateLimit  # what most do without takes a while to load

    return RateLimit(settings.rate_limit, settings.rate_limit_storage)


def client_has_gone() -> Callable[[], bool]:
    """A question, about the running request, that may be asked anywhere."""
    slot: Slot = g.slot
    return lambda: slot.is_abandoned


def _receive(asked: Request, seconds: float) -> None:
    """Have the whole body before it counts as in flight: who uploads slowly keeps nobody waiting.

    Raises UploadTooSlow, after which the connection is closed: nobody knows where its next request begins.
    """
    try:
        with time_limit(seconds, lambda: _too_slow(seconds)):
            asked.get_data(cache=True, parse_form_data=False)
    except UploadTooSlow:
        connection = asked.environ.get("gunicorn.socket")
        if connection is not None:
            connection.shutdown(socket.SHUT_RD)
        raise


def _too_slow(seconds: float) -> UploadTooSlow:
    return UploadTooSlow(
        f"the request had not arrived after {seconds:g} s; that is the limit (SIGHTLINE_UPLOAD_SECONDS)",
        hint="Send fewer or smaller pictures at a time.",
    )


def _is_preflight(asked: Request) -> bool:
    return asked.method == "OPTIONS" and "Access-Control-Request-Method" in asked.headers


def _share(response: Response, origins: tuple[str, ...]) -> None:
    """Let pages of the allowed origins read the answer. `*` allows all; cookies play no part."""
    if not origins:
        return
    origin = request.headers.get("Origin")
    if origin is None:
        return
    response.headers.add("Vary", "Origin")
    if origin not in origins and "*" not in origins:
        return
    response.headers["Access-Control-Allow-Origin"] = origin
    response.headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
    if _is_preflight(request):
        response.headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE"
        response.headers["Access-Control-Allow-Headers"] = ALLOWED_HEADERS
        response.headers["Access-Control-Max-Age"] = PREFLIGHT_SECONDS
