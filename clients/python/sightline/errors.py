"""The errors of the client: few classes, and the service's own word for what happened as `code`.

    SightlineError
    ├── BadRequest           the service does not accept the request, or the client did not send it
    ├── BadImage             one picture, or the face in it, cannot be used
    ├── NotFound             there is no such model, version, person or gallery
    ├── AccessDenied         no API key, or one that may not do this
    ├── Unavailable          try again later
    ├── DeadlineExceeded     no answer in time
    ├── ServerError          the service failed
    ├── ServiceUnreachable   nobody answers at the address
    ├── UnexpectedAnswer     somebody answers, and it is no Sightline
    ├── UsageError           an argument or an option that cannot work
    └── MissingPackage       a package that this needs is not installed

The codes are those of the service; docs/http.md lists them.
"""

import email.utils
import time
from collections.abc import Mapping
from typing import Any, TypeVar

import httpx


class SightlineError(Exception):
    """An error, in words for the person who can correct it.

    code: machine-readable, and never changes. detail: what was given and what was expected. hint: what to do about it,
    or "" where nothing is known. status, request_id: of the answer; None where no answer came.
    exit_status: of a command that ends with the error; 1: some or all of it failed, 2: it was not usable as given.
    """

    code = "error"
    exit_status = 1

    def __init__(
        self,
        detail: str,
        *,
        hint: str = "",
        code: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.status = status
        self.request_id = request_id
        if code:
            self.code = code

    def __str__(self) -> str:
        return sentences(self.detail, self.hint)


E = TypeVar("E", bound=SightlineError)


class BadRequest(SightlineError):
    code = "bad_request"


class BadImage(SightlineError):
    """One picture, or the face in it, cannot be used; its neighbours can."""

    code = "bad_image"


class NotFound(SightlineError):
    code = "not_found"


class AccessDenied(SightlineError):
    code = "forbidden"


class Unavailable(SightlineError):
    """The request is well formed and may succeed later.

    retry_after_seconds: what the service asks to wait; None where it says nothing.
    """

    code = "unavailable"
    retry_after_seconds: float | None = None


class DeadlineExceeded(SightlineError):
    code = "deadline_exceeded"


class ServerError(SightlineError):
    pass


class ServiceUnreachable(SightlineError):
    code, exit_status = "service_unreachable", 2


class UnexpectedAnswer(SightlineError):
    code, exit_status = "unexpected_answer", 2


class UsageError(SightlineError):
    code, exit_status = "usage", 2


class MissingPackage(SightlineError, ImportError):
    code, exit_status = "missing_package", 2


BY_STATUS: dict[int, type[SightlineError]] = {
    401: AccessDenied,
    403: AccessDenied,
    404: NotFound,
    408: DeadlineExceeded,
    415: BadImage,
    422: BadImage,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: DeadlineExceeded,
}
SERVER_ERRORS = 500  # HTTP statuses from here on are the service's own
TOO_MUCH = 413  # the HTTP status of a request that is too large
# What is wrong with one picture, although its status is that of any bad request.
PICTURE_CODES = frozenset(
    {
        "bad_image",
        "costly_image",
        "empty_image",
        "image_too_large",
        "invalid_base64",
        "too_many_pixels",
        "truncated_image",
        "unknown_pixel_range",
    }
)


def error_from_response(response: httpx.Response) -> SightlineError:
    """The error that an answer of 400 and above describes (RFC 9457, problem details)."""
    problem = json_object(response)
    error = error_from_problem(
        problem,
        BadImage if problem.get("code") in PICTURE_CODES else class_of(response.status_code),
        fallback=f"{response.request.url} answered {response.status_code} {response.reason_phrase}",
        status=response.status_code,
        request_id=problem.get("request_id") or response.headers.get("X-Request-ID"),
    )
    if isinstance(error, Unavailable) and "Retry-After" in response.headers:
        error.retry_after_seconds = retry_after(response, time.time())
    return error


def error_from_problem(
    problem: Mapping[str, Any],
    kind: type[E],
    *,
    fallback: str = "no reason was given",
    status: int | None = None,
    request_id: str | None = None,
) -> E:
    """An error of a class with the code and the words of a problem. fallback: the detail where it has none."""
    detail = problem.get("detail") or problem.get("error") or problem.get("title") or fallback
    code, hint = str(problem.get("code") or ""), str(problem.get("hint") or "")
    return kind(str(detail), hint=hint, code=code, status=status, request_id=request_id)


def class_of(status: int) -> type[SightlineError]:
    """The class of errors with an HTTP status."""
    return BY_STATUS.get(status, ServerError if status >= SERVER_ERRORS else BadRequest)


def error_from_transport(exc: httpx.TransportError, base_url: str) -> SightlineError:
    """Map a transport failure to a Sightline error."""
    if isinstance(exc, httpx.TimeoutException) and not isinstance(exc, httpx.ConnectTimeout):
        return DeadlineExceeded(
            f"{base_url} did not answer in time ({type(exc).__name__}).",
            hint="Allow more time, or send fewer pictures.",
        )
    return ServiceUnreachable(
        f"No service at {base_url}: {exc or type(exc).__name__}.",
        hint="Start one with `sightline serve`, or name another with --url or SIGHTLINE_URL.",
    )


def unexpected(response: httpx.Response, exc: Exception) -> UnexpectedAnswer:
    """The error of a 2xx response with an unreadable body."""
    return UnexpectedAnswer(
        f"{response.request.url} answered {response.status_code} with a body that is not Sightline's: "
        f"{type(exc).__name__}: {exc}",
        hint="Is this the address of a Sightline gateway?",
        status=response.status_code,
    )


def retry_after(response: httpx.Response, now: float) -> float:
    """The seconds that a Retry-After header asks for, 0 where it says nothing. Source: RFC 9110, section 10.2.3.

    now: seconds since the epoch.
    """
    value = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except ValueError:
        return 0.0


def json_object(response: httpx.Response) -> dict[str, Any]:
    """The body as a JSON object, empty where it is none."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def install_hint(extra: str) -> str:
    """Tell how to install one or several extras of this distribution."""
    return f"Install it: pip install 'sightline-serving[{extra}] @ file:///path/to/clone'."


def sentence(text: str) -> str:
    """A text with the full stop that it may lack."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def sentences(detail: str, hint: str) -> str:
    """A detail and its hint on one line."""
    return f"{sentence(detail)} {hint}" if hint else detail
