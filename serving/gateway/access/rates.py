"""Rate limits per API key, or per address where there are no keys."""

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
STORAGE_SECONDS = 0.25  # longest wait of a request for Redis
PAUSE_SECONDS = 5.0  # without limits after Redis did not answer


class RateLimit:
    """Counts requests in a sliding window. Safe to share between threads.

    rates: such as `100/minute` or `10/second,1000/hour`; "": no limit. storage: `memory://` counts per process,
    `redis://host:port` over all processes of all machines. clock: seconds.
    While the storage does not answer, nothing is limited: the limit is not worth an outage.
    Raises UsageError for a storage that cannot be used.
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
                f"The rate limit's storage cannot be used: {exc}.",
                hint="Set SIGHTLINE_RATE_LIMIT_STORAGE to memory:// or, with the extra redis, to redis://HOST:PORT.",
            ) from exc
        self._limiter = SlidingWindowCounterRateLimiter(store)

    def spend(self, who: str) -> None:
        """Count one request of `who`. Raises RateLimited past the limit."""
        if not self._rates or self._clock() < self._paused_until:
            return
        try:
            for rate in self._rates:
                if not self._limiter.hit(rate, who):
                    reset = self._limiter.get_window_stats(rate, who).reset_time
                    raise RateLimited(
                        f"The limit of {rate} is used up (SIGHTLINE_RATE_LIMIT).",
                        retry_after_seconds=max(1, math.ceil(reset - self._clock())),
                    )
        except StorageError as exc:
            self._paused_until = self._clock() + PAUSE_SECONDS
            log.error("The rate limit's storage does not answer; nothing is limited for %g s: %s", PAUSE_SECONDS, exc)


def check_rates(rates: str) -> tuple[RateLimitItem, ...]:
    """Parse rates. Raises ValueError."""
    return tuple(parse_many(rates)) if rates else ()
