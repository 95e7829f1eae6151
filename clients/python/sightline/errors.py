"""A service's problem+json as the error that the service raised.

The tree is that of `serving/contract/errors.py`: `except UnknownModel` means the same on both ends of the wire. Each
error that came over HTTP carries `status` and `request_id` beside its `code`, `detail` and `hint`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from serving.contract.errors import (
    BadImage,
    BadRequest,
    DeadlineExceeded,
    ModelError,
    NotFound,
    ServiceUnreachable,
    SightlineError,
    Unavailable,
    UnexpectedAnswer,
)

# What a status means where its body names no code that this client knows: a newer service, or a proxy before it.
BY_STATUS: dict[int, type[SightlineError]] = {
    400: BadRequest,
    404: NotFound,
    408: DeadlineExceeded,
    413: BadRequest,
    415: BadImage,
    422: BadImage,
    429: Unavailable,
    500: ModelError,
    502: Unavailable,
    503: Unavailable,
    504: DeadlineExceeded,
}


def error_from_response(response: httpx.Response) -> SightlineError:
    """The error that an answer of 400 and above describes."""
    problem = _json_object(response)
    kind = BY_STATUS.get(response.status_code, SightlineError)
    fallback = f"{response.request.url} answered {response.status_code} {response.reason_phrase}"
    error = error_from_problem(problem, kind, fallback)
    error.status = response.status_code
    error.request_id = problem.get("request_id") or response.headers.get("X-Request-ID")
    return error


def error_from_problem(
    problem: Mapping[str, Any], kind: type[SightlineError] = SightlineError, fallback: str = "no reason was given"
) -> SightlineError:
    """The error of `problem["code"]`; where the code is unknown, one of `kind` that keeps the code that it came with.

    fallback: the detail where the problem has none.
    """
    code = problem.get("code")
    detail = problem.get("detail") or problem.get("error") or problem.get("title") or fallback
    error = _classes().get(str(code), kind)(str(detail), hint=str(problem.get("hint") or ""))
    if code and error.code != code:
        vars(error)["code"] = str(code)  # a class variable of the tree; this one error came from a newer service
    return error


def error_from_transport(exc: httpx.TransportError, base_url: str) -> SightlineError:
    """What it means that no answer came: the one border at which httpx's errors become ours."""
    if isinstance(exc, httpx.TimeoutException) and not isinstance(exc, httpx.ConnectTimeout):
        return DeadlineExceeded(
            f"{base_url} did not answer in time ({type(exc).__name__})", hint="Allow more time, or send fewer pictures."
        )
    return ServiceUnreachable(
        f"no service at {base_url}: {exc or type(exc).__name__}",
        hint="Start one with `sightline serve`, or name another with --url or SIGHTLINE_URL.",
    )


def unexpected(response: httpx.Response, exc: Exception) -> UnexpectedAnswer:
    """The error of an answer that says it is well and cannot be read."""
    return UnexpectedAnswer(
        f"{response.request.url} answered {response.status_code} with a body that is not Sightline's: "
        f"{type(exc).__name__}: {exc}",
        hint="Is this the address of a Sightline gateway?",
    )


def _classes() -> dict[str, type[SightlineError]]:
    kinds: list[type[SightlineError]] = [SightlineError, *_subclasses(SightlineError)]
    return {kind.code: kind for kind in kinds}


def _subclasses(kind: type[SightlineError]) -> Iterator[type[SightlineError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


def _json_object(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
