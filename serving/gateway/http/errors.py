"""The mapping from errors to HTTP: the only table of status codes, and the problem+json body (RFC 9457)."""

import logging

from flask import Flask, Response, current_app, g, request
from werkzeug.exceptions import HTTPException

from serving.contract.errors import (
    BadImage,
    BadRequest,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    GalleryFull,
    ImageTooLarge,
    MethodNotAllowed,
    NotAnImage,
    NotFound,
    RateLimited,
    RequestTooLarge,
    SightlineError,
    TooManyImages,
    TooManyPixels,
    Unauthenticated,
    Unavailable,
    UnknownRoute,
    UnsupportedContentType,
    UnusableFace,
    UploadTooSlow,
)
from serving.gateway.http import schemas

log = logging.getLogger(__name__)

# An error without a row has the status of its nearest ancestor.
STATUS: dict[type[SightlineError], int] = {
    SightlineError: 500,
    BadRequest: 400,
    RequestTooLarge: 413,
    TooManyImages: 413,
    UnsupportedContentType: 415,
    UploadTooSlow: 408,
    BadImage: 400,
    NotAnImage: 415,
    ImageTooLarge: 413,
    TooManyPixels: 413,
    UnusableFace: 422,
    NotFound: 404,
    MethodNotAllowed: 405,
    Unauthenticated: 401,
    Forbidden: 403,
    Conflict: 409,
    Unavailable: 503,
    RateLimited: 429,
    DeadlineExceeded: 504,
    GalleryFull: 507,
}
OURS = 500  # from here on the fault is ours, and 500 is logged with its traceback


def status_of(error: SightlineError) -> int:
    """Return the HTTP status of an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def error_fields(error: SightlineError) -> schemas.PictureError:
    """Build the entry of an image that was refused beside others that were not."""
    return {"code": error.code, "detail": error.detail, "hint": error.hint}


def problem_of(error: SightlineError, path: str, request_id: str) -> schemas.Problem:
    """Build the body of the answer to a request that failed."""
    return {
        "type": f"urn:sightline:error:{error.code}",
        "title": error.title,
        "status": status_of(error),
        "detail": error.detail,
        "instance": path,
        "code": error.code,
        "error": error.detail,  # where clients of TensorFlow Serving and KServe look
        "hint": error.hint,
        "request_id": request_id,
    }


def problem_body(error: SightlineError) -> schemas.Problem:
    """Build the body of the answer to the running request, which failed."""
    return problem_of(error, request.script_root + request.path, g.request_id)


def problem(error: SightlineError, body: schemas.Problem | None = None) -> Response:
    """Answer a failed request: application/problem+json, with `Retry-After` where waiting may help.

    body: one with more fields than `problem_body` gives.
    """
    text = current_app.json.dumps(body or problem_body(error))
    response = Response(text, status_of(error), content_type=content_type(request.path))
    if isinstance(error, Unavailable):
        response.headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, Unauthenticated):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def content_type(path: str) -> str:
    """Return the content type of errors: clients of TensorFlow Serving and KServe only accept application/json."""
    return "application/json" if path.lower().startswith(("/v1/", "/v2")) else "application/problem+json"


def register(app: Flask) -> None:
    """Answer every error of the application with a problem."""
    app.register_error_handler(SightlineError, _ours)
    app.register_error_handler(HTTPException, _framework)
    app.register_error_handler(Exception, _unknown)


def _ours(error: SightlineError) -> Response:
    g.error = error
    if status_of(error) == OURS:
        log.error("%s %s", g.request_id, error, exc_info=error)
    return problem(error)


def _framework(exc: HTTPException) -> Response:
    """Translate errors of Flask and Werkzeug, here and nowhere else."""
    response = _ours(_translated(exc))
    if exc.code and exc.code < OURS:
        response.headers.extend(
            (name, value) for name, value in exc.get_headers() if name.lower() not in ("content-type", "content-length")
        )
    return response


def _translated(exc: HTTPException) -> SightlineError:
    limit = current_app.config["MAX_CONTENT_LENGTH"]
    match exc.code:
        case 404:
            return UnknownRoute(f"There is nothing at {request.path}.", hint="See /docs for all addresses.")
        case 405:
            return MethodNotAllowed(f"{request.method} is not allowed at {request.path}.", hint=_allowed(exc))
        case 413:
            return RequestTooLarge(
                f"The request has {request.content_length or 'too many'} bytes; the limit is {limit:,} "
                "(SIGHTLINE_MAX_REQUEST_BYTES).",
                hint="Send fewer images in a request, or raise the limit.",
            )
        case code if code is not None and code < OURS:
            return BadRequest(exc.description or exc.name)
        case _:
            return _internal()


def _allowed(exc: HTTPException) -> str:
    methods = getattr(exc, "valid_methods", None)
    return f"Allowed: {', '.join(sorted(methods))}." if methods else ""


def _unknown(exc: Exception) -> Response:
    log.error("%s unexpected error", g.request_id, exc_info=exc)
    return _ours_silently(_internal())


def _ours_silently(error: SightlineError) -> Response:
    g.error = error
    return problem(error)


def _internal() -> SightlineError:
    return SightlineError("An unexpected error happened.", hint="The service's log has it, under the request's id.")
