"""Checks before every route: API keys, rate limits, the bound of requests in flight, CORS, browser headers."""

import re
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response, g, request
from gunicorn.http.errors import NoMoreData, ParseException

from serving.contract.errors import BadRequest, Forbidden, UploadTooSlow
from serving.gateway.access.in_flight import InFlight, Slot
from serving.gateway.access.keys import ApiKey, KeyRing, authenticate, authorize
from serving.gateway.access.uploads import Uploads
from serving.gateway.front import HEADERS, PROBES
from serving.gateway.http.openapi import scope_of
from serving.gateway.settings import Settings
from serving.gateway.workers.greenlets import time_limit
from serving.gateway.workers.memory import FreedMemory
from serving.gateway.workers.shared import Shared

if TYPE_CHECKING:
    from serving.gateway.access.rates import RateLimit

WITH_BODY = ("POST", "PUT", "PATCH", "DELETE")
ALLOWED_HEADERS = "Authorization, Content-Type, X-Request-ID, X-Request-Timeout, traceparent, tracestate"
EXPOSED_HEADERS = "X-Request-ID, Retry-After"
PREFLIGHT_SECONDS = "600"
POLICY = HEADERS[-1][0]  # pages set their own
HOST = re.compile(r"[\w.~%!$&'()*+,;=:\[\]-]*", re.ASCII)  # RFC 3986, section 3.2.2


class ReceivedRequest(Request):
    """A request whose body is there. body: its bytes, once they have been received."""

    body: bytes | None = None

    def get_data(self, *args: Any, **kwargs: Any) -> Any:
        """Return the body."""
        return super().get_data(*args, **kwargs) if self.body is None else self.body


def guard(app: Flask, settings: Settings, shared: Shared, in_flight: InFlight, freed: FreedMemory) -> None:
    """Refuse unauthorized and excess requests. Register it after the hook that gives a request its id."""
    ring = KeyRing(settings.api_key_entries, settings.key_file, lambda: shared.generation)
    rates = _rate_limit(settings)
    uploads = Uploads(max(settings.max_bytes_in_flight, settings.max_request_bytes), freed)

    @app.before_request
    def admit() -> Response | None:
        asked: ReceivedRequest = request._get_current_object()  # type: ignore[attr-defined]
        _check_host(asked.environ)
        if _is_preflight(asked):
            return Response(status=204)
        _check_access(app, asked, ring.current())
        if asked.path not in PROBES:
            if rates is not None:
                rates.spend(f"key {g.key}" if "key" in g else f"address {asked.remote_addr}")
            if asked.method in WITH_BODY:
                _receive(asked, settings, uploads)
            connection = asked.environ.get("gunicorn.socket")
            g.slot = in_flight.enter(connection, may_ask=asked.environ.get("SERVER_PROTOCOL") == "HTTP/1.1")
            g.hold_slot = in_flight.hold
        return None

    @app.teardown_request
    def leave(exc: BaseException | None) -> None:  # noqa: ARG001
        slot = g.pop("slot", None)
        if slot is not None:
            in_flight.leave(slot)
        upload = g.pop("upload", None)
        if upload is not None:
            uploads.give_back(upload)

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


def _check_host(environ: dict[str, Any]) -> None:
    """Raise BadRequest without a usable Host (RFC 9112, section 3.2)."""
    host = environ.get("HTTP_HOST")
    if host is None:
        if environ.get("SERVER_PROTOCOL") == "HTTP/1.1":
            raise BadRequest("The request has no Host header, which HTTP/1.1 requires.")
    elif not HOST.fullmatch(host):
        raise BadRequest("The Host header is not a host.")


def _receive(asked: ReceivedRequest, settings: Settings, uploads: Uploads) -> None:
    """Read the whole body before the request takes a slot, so that a slow upload holds up nobody.

    Raises UploadTooSlow, RequestTooLarge, Overloaded and BadRequest, and then ends the connection: the start of its
    next request is unknown.
    """
    environ, seconds = asked.environ, settings.upload_seconds
    length, connection = asked.content_length, environ.get("gunicorn.socket")
    if length is None and "wsgi.input_terminated" not in environ:
        length = 0
    try:
        with time_limit(seconds, lambda: _too_slow(seconds)):
            asked.body, g.upload = uploads.receive(
                environ["wsgi.input"], length, settings.max_request_bytes, connection
            )
    except BaseException as exc:
        if connection is not None:
            _end_input(connection)
        if isinstance(exc, (ParseException, NoMoreData)):
            raise BadRequest(f"The body's chunks cannot be read: {exc}.") from exc
        raise


def _end_input(connection: Any) -> None:
    """Make the connection end with the answer. Under gevent the client can read it although it still sends."""
    if hasattr(connection, "end_input"):
        connection.end_input()
    else:
        connection.shutdown(socket.SHUT_RD)


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
