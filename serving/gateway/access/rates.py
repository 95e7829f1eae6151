"""Rate limits: how many requests an API key, or an address, may send."""

import logging
import math
import time
from collections.abc import Callable

from limits import RateLimitItem, parse_many
from limits.errors import ConfigurationError, StorageError
from limits.storage import storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter

from serving.contract.errors import RateLimited, UsageError

log = logging.getLogger(__name__)

MEMORY = "memory://"
STORAGE_SECONDS = 0.25  # the longest that a request waits for Redis
PAUSE_SECONDS = 5.0  # how long Redis is not asked again after it did not answer


class RateLimit:
    """Counts requests in a sliding window. Safe to share between threads.

    rates: such as `100/minute` or `10/second,1000/hour`; "" allows everything. storage: `memory://`, in which each
    process counts for itself, or `redis://host:port`, in which all processes of all machines count together.
    clock: seconds. While the storage does not answer, everything is allowed: the limit is not worth an outage.
    Raises UsageError for what cannot be understood.
    """

    def __init__(self, rates: str, storage: str = MEMORY, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._paused_until = 0.0
        self._rates = check_rates(rates)
        timeouts = {} if storage == MEMORY else {"socket_timeout": STORAGE_SECONDS, "socket_connect_timeout": 0.25}
        try:
            store = storage_from_string(storage, wrap_exceptions=True, **timeouts)
        except ConfigurationError as exc:
            raise UsageError(
                f"the rate limit's storage cannot be used: {exc}",
                hint="memory:// or, with the extra redis installed, redis://HOST:PORT (SIGHTLINE_RATE_LIMIT_STORAGE).",
            ) from exc
        self._limiter = SlidingWindowCounterRateLimiter(store)

    def spend(self, who: str) -> None:
        """Count one request of `who`. Raises RateLimited where it is one too many."""
        if not self._rates or self._clock() < self._paused_until:
            return
        try:
            for rate in self._rates:
                if not self._limiter.hit(rate, who):
                    reset = self._limiter.get_window_stats(rate, who).reset_time
                    raise RateLimited(
                        f"the limit of {rate} is used up (SIGHTLINE_RATE_LIMIT)",
                        retry_after_seconds=max(1, math.ceil(reset - self._clock())),
                    )
        except StorageError as exc:
            self._paused_until = self._clock() + PAUSE_SECONDS
            log.error("the rate limit's storage does not answer; nothing is limited for a moment: %s", exc)


def check_rates(rates: str) -> tuple[RateLimitItem, ...]:
    """The rates in a text. Raises ValueError."""
    return tuple(parse_many(rates)) if rates else ()
