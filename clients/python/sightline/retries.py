"""Whether and when a request is sent again."""

import email.utils
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

FIRST_DELAY = 0.25  # seconds; doubled with each attempt
LONGEST_DELAY = 8.0  # seconds
LONGEST_RETRY_AFTER = 60.0  # seconds; a service that asks for more gets its error raised at once
RETRY_STATUSES = frozenset({408, 429, 502, 503, 504})
REFUSED_STATUSES = frozenset({429, 503})  # the request was not carried out: even one that must not be repeated may be


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is sent again, and how long to wait before. jitter: a number in 0-1."""

    most: int
    jitter: Callable[[], float] = random.random
    now: Callable[[], float] = time.time  # seconds since the epoch

    def delay(self, outcome: httpx.Response | httpx.TransportError, attempt: int, repeatable: bool) -> float | None:
        """Seconds to wait before the request is sent again; None: the outcome stands.

        attempt: how often it was sent again already. A service's Retry-After is a lower bound.
        """
        backoff = self.backoff(attempt)
        if backoff is None or not may_repeat(outcome, repeatable):
            return None
        asked = retry_after(outcome, self.now()) if isinstance(outcome, httpx.Response) else 0.0
        return None if asked > LONGEST_RETRY_AFTER else max(asked, backoff)

    def backoff(self, attempt: int) -> float | None:
        """Seconds to wait before an attempt that may be repeated is; None where it was often enough.

        The delay doubles from a quarter of a second and a random half of it is taken off, so that clients that failed
        together do not return together ("equal jitter", M. Brooker, Exponential Backoff And Jitter, 2015).
        """
        if attempt >= self.most:
            return None
        longest: float = min(LONGEST_DELAY, FIRST_DELAY * 2**attempt)
        return longest * (0.5 + self.jitter() / 2)


def may_repeat(outcome: httpx.Response | httpx.TransportError, repeatable: bool) -> bool:
    """Whether it is worth it and harmless to send a request again after this outcome."""
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in (RETRY_STATUSES if repeatable else REFUSED_STATUSES)
    if isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        return True
    return repeatable and isinstance(outcome, httpx.NetworkError | httpx.RemoteProtocolError)


def retry_after(response: httpx.Response, now: float) -> float:
    """The seconds that a Retry-After header asks for, 0 where it says nothing. Source: RFC 9110, section 10.2.3."""
    value = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except ValueError:
        return 0.0
