"""gunicorn's gevent worker, which stops as soon as what runs has ended and takes its share of the connections."""

import time
from functools import partial
from types import FrameType
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.workers.ggevent import GeventWorker

from serving.gateway.workers.alarms import Alarm, ring_silent
from serving.gateway.workers.shared import SHARED

BEAT_SECONDS = 1.0  # how often the arbiter is told that the worker lives
TICK_SECONDS = 0.05  # how often a worker that stops looks whether it may
LINGER_SECONDS = 2.0  # how long a worker that is replaced lets a connection rest
SETTLE_SECONDS = 0.2  # for requests that are on their way when the worker is told to stop
GIVE_WAY_SECONDS = 0.005  # for a worker with fewer connections to take the next one
TAKEN_AT_ONCE = 16  # connections; a worker that is busy comes to it rarely
TAKEN_AFTER_ALL = 4  # when nobody took them


class Worker(GeventWorker):  # type: ignore[misc]
    """gunicorn's own looks once a second whether it was told to stop, and counts every open connection as running.

    With one client that keeps its connection it would wait for all of `graceful_timeout` and then end by force.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._told_to_stop: Event | None = None  # made in the worker: an Event belongs to a process's loop

    def run(self) -> None:
        """Serve until told to stop, then until what runs has ended or `graceful_timeout` is over."""
        self._told_to_stop = Event()
        pool = Pool(self.worker_connections)
        servers = [self._server(each, pool) for each in self.sockets]
        while self.alive:
            self.notify()
            self._told_to_stop.wait(BEAT_SECONDS)
        deadline = time.monotonic() + self.cfg.graceful_timeout
        gevent.sleep(SETTLE_SECONDS)
        for server in servers:
            server.close()
        SHARED.hold_no_more()
        while len(pool) and time.monotonic() < deadline:
            self.notify()
            gevent.get_hub().loop.run_callback(self._end_resting)
            gevent.sleep(TICK_SECONDS)
        if len(pool):
            self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
            pool.kill(block=True, timeout=1)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """Answer one request, head and body in one packet where they fit."""
        joined = _Joined(sock)
        try:
            return super().handle_request(listener_name, req, joined, addr)
        finally:
            joined.flush()

    def timeout_ctx(self) -> Alarm:
        """What surrounds the wait for a connection's next request."""
        return Alarm(self.cfg.keepalive)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: answers close their connections from now on, and those that rest are closed."""
        super().handle_exit(sig, frame)
        if self._told_to_stop is not None:
            self._told_to_stop.set()

    def _server(self, listener: Any, pool: Pool) -> StreamServer:
        listener.setblocking(1)
        kind = _SharingServer if self.cfg.workers > 1 else StreamServer
        server = kind(listener, handle=partial(self.handle, listener), spawn=pool)
        server.start()
        return server

    def _end_resting(self) -> None:
        """Runs in the hub: nobody starts a request between the look and the throw.

        A worker that only makes room for a new one has time: a client that asks again soon is answered, and told to
        close, where an end at once could meet its next request on the way.
        """
        is_told = self._told_to_stop is not None and self._told_to_stop.is_set()
        ring_silent(time.monotonic() - (0.0 if is_told else LINGER_SECONDS))


class _SharingServer(StreamServer):  # type: ignore[misc]
    """Takes connections until it has more than another worker has; then only what that one leaves for 5 milliseconds.

    All workers are woken for each connection, and who happens to run takes it: of 32 clients that come at once one
    worker got 26 and let them wait, while the other had little to do.
    """

    def start(self) -> None:
        SHARED.hold(len(self.pool))
        super().start()

    def _do_read(self) -> None:
        fewest = SHARED.fewest_elsewhere()
        share = TAKEN_AT_ONCE if fewest is None else min(TAKEN_AT_ONCE, fewest + 1 - len(self.pool))
        if share > 0:
            self._take(share)
        else:
            self.stop_accepting()
            self._timer = self.loop.timer(GIVE_WAY_SECONDS)
            self._timer.start(self._take_what_is_left)

    def _take_what_is_left(self) -> None:
        if self.started:
            self.start_accepting()
            self._take(TAKEN_AFTER_ALL)

    def _take(self, most: int) -> None:
        self.max_accept = most
        super()._do_read()

    def do_handle(self, *args: Any) -> None:
        super().do_handle(*args)
        SHARED.hold(len(self.pool))

    def do_close(self, *args: Any) -> None:
        """A connection has ended; its greenlet still counts."""
        super().do_close(*args)
        if not self.closed:
            SHARED.hold(len(self.pool) - 1)


class _Joined:
    """A socket that keeps what is sent first, an answer's head, until more comes: one system call instead of two."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._kept: bytes | None = None
        self._is_first = True

    def sendall(self, data: bytes) -> None:
        if self._is_first:
            self._is_first, self._kept = False, data
            return
        kept, self._kept = self._kept, None
        self._sock.sendall(data if kept is None else kept + data)

    def flush(self) -> None:
        """Send what is kept."""
        kept, self._kept = self._kept, None
        if kept is not None:
            self._sock.sendall(kept)

    def shutdown(self, how: int) -> None:
        self.flush()
        self._sock.shutdown(how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)
