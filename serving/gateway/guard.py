"""Checks before every route: API keys, rate limits, the bound of requests in flight, CORS, browser headers."""

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flask import Flask, Request, Response, g, request

from serving.contract.errors import Forbidden, UploadTooSlow
from serving.gateway.access.in_flight import InFlight, Slot
from serving.gateway.access.keys import ApiKey, KeyRing, authenticate, authorize
from serving.gateway.http.openapi import scope_of
from serving.gateway.settings import Settings
from serving.gateway.workers.greenlets import time_limit
from serving.gateway.workers.shared import Shared

if TYPE_CHECKING:
    from serving.gateway.access.rates import RateLimit

WITH_BODY = ("POST", "PUT", "PATCH", "DELETE")
PROBES = ("/healthz", "/readyz", "/metrics")  # polled every few seconds: answered even at the limit, not logged
ALLOWED_HEADERS = "Authorization, Content-Type, X-Request-ID, X-Request-Timeout, traceparent, tracestate"
EXPOSED_HEADERS = "X-Request-ID, Retry-After"
PREFLIGHT_SECONDS = "600"
POLICY = "Content-Security-Policy"  # pages set their own
HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    (POLICY, "default-src 'none'; frame-ancestors 'none'"),
)


def guard(app: Flask, settings: Settings, shared: Shared) -> None:
    """Refuse unauthorized and excess requests. Register it after the hook that gives a request its id."""
    ring = KeyRing(settings.api_key_entries, settings.key_file, lambda: shared.generation)
    rates = _rate_limit(settings)
    in_flight = InFlight(shared, settings.threads, settings.max_in_flight)

    @app.before_request
    def admit() -> Response | None:
        asked: Request = request._get_current_object()  # type: ignore[attr-defined]
        if _is_preflight(asked):
            return Response(status=204)
        _check_access(app, asked, ring.current())
        if asked.path not in PROBES:
            if rates is not None:
                rates.spend(f"key {g.key}" if "key" in g else f"address {asked.remote_addr}")
            if asked.method in WITH_BODY:
                _receive(asked, settings.upload_seconds)
            g.slot = in_flight.enter(asked.environ.get("gunicorn.socket"))
            g.hold_slot = in_flight.hold
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


def _check_access(app: Flask, asked: Request, keys: Sequence[ApiKey]) -> None:
    """Raise Unauthenticated or Forbidden unless the caller may use the route. keys: none where all callers may.

    A route without a scope is refused to everybody. A path without a route wants a valid key before its 404.
    """
    scope = None
    if asked.endpoint is not None:
        scope = scope_of(app.view_functions[asked.endpoint])
        if scope is None:
            raise Forbidden("This route declares no scope, so nobody may call it.", hint="Declare its `scope=`.")
    if not keys or scope == "open":
        return
    key = authenticate(keys, asked.headers.get("Authorization", ""))
    g.key = key.name
    if scope is not None:
        authorize(key, scope)


def _rate_limit(settings: Settings) -> "RateLimit | None":
    if not settings.rate_limit:
        return None
    from serving.gateway.access.rates import RateLimit  # slow to import, and rarely needed

    return RateLimit(settings.rate_limit, settings.rate_limit_storage)


def client_has_gone() -> Callable[[], bool]:
    """Return a check, usable in any thread, for whether the client of the running request has gone."""
    slot: Slot = g.slot
    return lambda: slot.is_abandoned


def hold_place() -> Callable[[], None]:
    """Keep the running request's slot taken until the function that this returns is called, in any thread."""
    release: Callable[[], None] = g.hold_slot(g.slot)
    return release


def _receive(asked: Request, seconds: float) -> None:
    """Read the whole body before the request takes a slot, so that a slow upload holds up nobody.

    Raises UploadTooSlow, and then closes the connection: the start of its next request is unknown.
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
        f"The request had not arrived after {seconds:g} s, the limit (SIGHTLINE_UPLOAD_SECONDS).",
        hint="Send fewer or smaller images at a time.",
    )


def _is_preflight(asked: Request) -> bool:
    return asked.method == "OPTIONS" and "Access-Control-Request-Method" in asked.headers


def _share(response: Response, origins: tuple[str, ...]) -> None:
    """Let pages of the allowed origins read the answer. `*` allows all; cookies are not used."""
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
