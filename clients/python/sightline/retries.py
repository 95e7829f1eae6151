"""Retries: which requests are sent again, and after which pauses."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from sightline.errors import retry_after

FIRST_DELAY = 0.25  # seconds; doubled with each attempt
LONGEST_DELAY = 8.0  # seconds
LONGEST_RETRY_AFTER = 60.0  # seconds; a service that asks for more gets its error raised at once
RETRY_STATUSES = frozenset({408, 429, 502, 503, 504})
REFUSED_STATUSES = frozenset({429, 503})  # the request was not carried out: even one that must not be repeated may be


@dataclass(frozen=True, slots=True)
class Retries:
    """The retries of a client. most: how often a request is sent again; jitter: draws a number from 0 to 1."""

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
        """Seconds to wait before the next attempt; None after the last one.

        The delay doubles from a quarter of a second and a random half of it is taken off, so that clients that failed
        together do not return together ("equal jitter", M. Brooker, Exponential Backoff And Jitter, 2015).
        """
        if attempt >= self.most:
            return None
        longest: float = min(LONGEST_DELAY, FIRST_DELAY * 2**attempt)
        return longest * (0.5 + self.jitter() / 2)


def may_repeat(outcome: httpx.Response | httpx.TransportError, repeatable: bool) -> bool:
    """Tell whether sending a request again after this outcome is harmless and may help."""
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in (RETRY_STATUSES if repeatable else REFUSED_STATUSES)
    if isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        return True
    return repeatable and isinstance(outcome, httpx.NetworkError | httpx.RemoteProtocolError)
