"""gunicorn's gevent worker, which also lets go of resting connections when it is told to stop."""

from types import FrameType
from typing import Any

import gevent
from gunicorn.workers.ggevent import GeventWorker

SETTLE_SECONDS = 0.2  # for requests that are on their way when the worker is told to stop


class Worker(GeventWorker):  # type: ignore[misc]
    """Stops when its running requests have ended.

    gunicorn's own counts every open connection as running: with one client that keeps its connection it waits for all
    of `graceful_timeout` and then ends by force.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._resting: dict[gevent.Greenlet, gevent.Timeout] = {}

    def timeout_ctx(self) -> "_Resting":
        """What surrounds the wait for a connection's next request."""
        return _Resting(self._resting, self.cfg.keepalive)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: answers close their connections from now on, and those that rest are closed."""
        super().handle_exit(sig, frame)
        gevent.spawn(self._close_resting)

    def _close_resting(self) -> None:
        while True:  # also connections that come until the listener is closed
            gevent.sleep(SETTLE_SECONDS)
            gevent.get_hub().loop.run_callback(self._end_resting)

    def _end_resting(self) -> None:
        """Runs in the hub: nobody starts a request between the look and the throw."""
        for greenlet, timeout in list(self._resting.items()):
            if self._resting.get(greenlet) is timeout:
                greenlet.throw(timeout)


class _Resting:
    """A timeout that passes in silence, known by its greenlet while it runs."""

    def __init__(self, resting: dict[Any, gevent.Timeout], seconds: float) -> None:
        self._resting = resting
        self._timeout = gevent.Timeout(seconds, False)

    def __enter__(self) -> None:
        self._resting[gevent.getcurrent()] = self._timeout
        self._timeout.__enter__()

    def __exit__(self, *exc: Any) -> bool:
        self._resting.pop(gevent.getcurrent(), None)
        return bool(self._timeout.__exit__(*exc))
