"""A gevent worker for gunicorn that stops after its last request and takes a fair share of the connections."""

import time
from functools import partial
from types import FrameType
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.workers.ggevent import GeventWorker

from serving.gateway.gunicorn.connections import SPARE, Connection, Connections, Limits
from serving.gateway.gunicorn.turns import Turns
from serving.gateway.workers.shared import SHARED

PROBES = ("/healthz", "/readyz")  # those that answer within a second; /metrics is no cheap request
BEAT_SECONDS = 1.0  # between two heartbeats to the arbiter
TICK_SECONDS = 0.05  # between two checks of a stopping worker for running requests
LINGER_SECONDS = 2.0  # for which a worker that is being replaced keeps an idle connection
SETTLE_SECONDS = 0.2  # for requests on their way when the worker is told to stop
GIVE_WAY_SECONDS = 0.005  # in which a worker with fewer connections may take the next one
DISCARDED = 262_144  # bytes of a body that nobody read; a longer one costs more than a new connection
TAKEN_AT_ONCE = 64  # connections; a busy worker rarely gets to accept
CROWD = 8  # for each so many connections a worker may take one more: where they are many, it is quick
TAKEN_AFTER_ALL = 4  # connections that no other worker took


class Worker(GeventWorker):  # type: ignore[misc]
    """A GeventWorker that stops as soon as its requests have ended.

    gunicorn's own checks for a stop once a second and counts every open connection as running: one client that keeps
    its connection makes it wait for all of `graceful_timeout`, after which it is killed.
    """

    limits = Limits()  # gunicorn.conf.py gives each worker the operator's

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._told_to_stop: Event | None = None  # created in the worker: an Event belongs to one process's loop

    def run(self) -> None:
        """Serve until told to stop, then until the running requests have ended or `graceful_timeout` is over."""
        self._told_to_stop = Event()
        self._turns = Turns()
        self._connections = Connections(self.limits, self._turns)
        pool = Pool(self.limits.most + SPARE)
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
            gevent.get_hub().loop.run_callback(self._end_idle)
            gevent.sleep(TICK_SECONDS)
        if len(pool):
            self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
            pool.kill(block=True, timeout=1)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Answer a connection's requests."""
        with self._connections.opened(client, addr) as connection:
            gevent.getcurrent().connection = connection
            super().handle(listener, connection, addr)

    def handle_request(self, listener_name: Any, req: Any, sock: Connection, addr: Any) -> Any:
        """Answer one request in its turn, with head and body in one packet where they fit."""
        sock.take_turn(is_probe=req.path in PROBES)
        sock.begin_answer()
        try:
            return super().handle_request(listener_name, req, sock, addr)
        finally:
            sock.flush()
            self._discard_body(req, sock)

    def timeout_ctx(self) -> Connection:
        """Limit the wait for the next request of the running greenlet's connection."""
        connection: Connection = gevent.getcurrent().connection
        return connection

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle SIGTERM: answers close their connections from now on, and idle connections are closed."""
        super().handle_exit(sig, frame)
        if self._told_to_stop is not None:
            self._told_to_stop.set()

    def _server(self, listener: Any, pool: Pool) -> StreamServer:
        listener.setblocking(1)
        kind = _SharingServer if self.cfg.workers > 1 else StreamServer
        server = kind(listener, handle=partial(self.handle, listener), spawn=pool)
        server.start()
        return server

    def _discard_body(self, req: Any, sock: Connection) -> None:
        """Read what is left of a short body that nobody read; after a longer one, end the connection.

        gunicorn's parser would read it all, slowly and without letting others run.
        """
        if getattr(req.body.reader, "length", 1) == 0:  # the usual case: it has been read, or there is none
            return
        with sock:
            if req.body.failed or (req.body.read(DISCARDED) and req.body.read(1)):
                sock.end_input()

    def _end_idle(self) -> None:
        """Close idle connections. Runs in the hub: no request starts between the check and the kill.

        A worker that is only being replaced has time: it still answers the next request of a connection and closes it
        then. Closing at once could cut off a request that is on its way.
        """
        is_told = self._told_to_stop is not None and self._told_to_stop.is_set()
        self._connections.end_idle(time.monotonic() - (0.0 if is_told else LINGER_SECONDS))


class _SharingServer(StreamServer):  # type: ignore[misc]
    """Accept connections while no worker has fewer; then only those that no other takes within GIVE_WAY_SECONDS.

    The kernel wakes all workers for each connection, and the first to run takes it: of 32 simultaneous clients one
    worker got 26, and the other was idle.
    """

    def start(self) -> None:
        SHARED.hold(len(self.pool))
        super().start()

    def _do_read(self) -> None:
        fewest = SHARED.fewest_elsewhere()
        share = TAKEN_AT_ONCE
        if fewest is not None:
            share = min(share, fewest + 1 + fewest // CROWD - len(self.pool))
        if share > 0:
            self._take(share)
        else:
            self.stop_accepting()
            self._timer = self.loop.timer(GIVE_WAY_SECONDS)
            self._timer.start(self._take_left_over)

    def _take_left_over(self) -> None:
        if self.started:
            self.start_accepting()
            self._take(min(TAKEN_AT_ONCE, max(TAKEN_AFTER_ALL, len(self.pool) // CROWD)))

    def _take(self, most: int) -> None:
        self.max_accept = most
        super()._do_read()

    def do_handle(self, *args: Any) -> None:
        super().do_handle(*args)
        SHARED.hold(len(self.pool))

    def do_close(self, *args: Any) -> None:
        """Count one connection less; its greenlet is still in the pool."""
        super().do_close(*args)
        if not self.closed:
            SHARED.hold(len(self.pool) - 1)
