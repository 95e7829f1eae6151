"""The connections of a gevent worker: bounded in number, per address, and in how long they wait for their client."""

import contextlib
import errno
import ipaddress
import math
import socket
import struct
import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any

import gevent
from gevent.event import Event
from gevent.hub import Waiter

from serving.gateway.gunicorn.turns import Turns

CHECK_SECONDS = 0.25  # between two checks for connections past their time
LARGE = 65_536  # bytes; whoever sends so much at once waits for its turn: receiving what is there does not wait
LINGER_SECONDS = 2.0  # for a client that still sends a refused body to read the answer
DISCARDED_AT_ONCE = 262_144  # bytes
DROPPED_AT_ONCE = 16  # of a full table, one in so many: looking for the longest idle costs time
DEAF_SECONDS = 0.5  # without taking an answer, after which a connection is dropped before others
SPARE = 64  # connections beyond the table, while no other can be dropped
NETWORK_OF_A_HOST = 64  # bits; one host may have all addresses of such an IPv6 network
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, unsent data is lost


@dataclass(frozen=True, slots=True)
class Limits:
    """most: connections of a process; most_of_one: of one address, 0 for no limit.

    head_seconds: for the first request's head from the start, for a later one from its first bytes.
    idle_seconds: between two requests. send_seconds: for the client to take an answer.
    rests: a connection may be made to wait before its next request; not where several clients share it.
    """

    most: int = 1000
    most_of_one: int = 0
    head_seconds: float = 10.0
    idle_seconds: float = 75.0
    send_seconds: float = 30.0
    rests: bool = True


class Connection:
    """A client's socket. It sends an answer's head with its body, and knows for how long it has waited for the client.

    As a context manager, it waits for the next request's head. was_answered: an earlier request was. is_pipelined: its
    last request came with the one before.
    since: monotonic seconds, 0.0 while it does not wait, be it for the client or its turn. until: when it is dropped.
    """

    __slots__ = (
        "_is_ended",
        "_is_first",
        "_kept",
        "_limits",
        "_reads",
        "_rest_until",
        "_sock",
        "_turns",
        "_waiter",
        "_woken",
        "host",
        "is_dropped",
        "is_pipelined",
        "is_sending",
        "since",
        "until",
        "was_answered",
    )  # fmt: skip

    def __init__(self, sock: Any, host: str, limits: Limits, turns: Turns) -> None:
        self._sock, self._limits, self._turns = sock, limits, turns
        self._kept: bytes | None = None
        self._is_first = self._is_ended = self.is_sending = False
        self._reads = -1  # of the head that is awaited; negative: none is
        self._rest_until = 0.0
        self.is_pipelined = False
        self._waiter: Waiter | None = None  # while it waits for its turn
        self._woken: Event | None = None  # while it pauses
        self.host = host
        self.was_answered = self.is_dropped = False
        self.since, self.until = 0.0, math.inf

    def __enter__(self) -> None:
        limits = self._limits
        if self._rest_until:
            self.pause(self._rest_until - time.monotonic())
            self._rest_until = 0.0
        self._reads = 0
        self.until = time.monotonic() + (limits.idle_seconds if self.was_answered else limits.head_seconds)

    def __exit__(self, *exc: object) -> None:
        self.is_pipelined = self._reads == 0  # the head came with an earlier request
        self._reads = -1
        self.until = math.inf

    @property
    def is_idle(self) -> bool:
        """It waits for a request."""
        return self._reads >= 0 and self.since > 0

    def recv(self, size: int) -> bytes:
        """Receive; nothing after `end_input`."""
        if self._is_ended:
            return b""
        now = self.since = time.monotonic()
        if self._reads >= 0:
            self._reads += 1
            if self._reads == 2:  # the head comes in pieces
                self.until = now + self._limits.head_seconds
        try:
            data: bytes = self._sock.recv(size)
        finally:
            self.since = 0.0
        if len(data) >= LARGE or not data:  # many may end at once
            self._turns.take()
        return data

    def rest(self, seconds: float) -> None:
        """Look at the connection's next request, which may be there already, after so many seconds only."""
        if self._limits.rests:
            self._rest_until = time.monotonic() + seconds

    def take_turn(self, *, is_probe: bool) -> None:
        """Wait for the turn of its request. Raises ConnectionResetError when it is dropped meanwhile."""
        self._waiter = self._turns.join(is_probe=is_probe)
        if self._waiter is None:
            return
        self.since = time.monotonic()
        try:
            self._waiter.get()
        finally:
            self._waiter, self.since = None, 0.0

    def pause(self, seconds: float) -> None:
        """Make its greenlet wait, less long where the connection is dropped."""
        self._woken = Event()
        self.since = time.monotonic()
        try:
            self._woken.wait(max(0.0, seconds))
        finally:
            self._woken, self.since = None, 0.0

    def begin_answer(self) -> None:
        """Hold back the next send, an answer's head, until the one after: one system call instead of two."""
        self._is_first = True

    def sendall(self, data: bytes) -> None:
        """Send, or hold back. Raises OSError when the client does not read."""
        if self._is_first:
            self._is_first, self._kept = False, data
            return
        kept, self._kept = self._kept, None
        now = self.since = time.monotonic()
        self.until = now + self._limits.send_seconds
        self.is_sending = True
        try:
            self._sock.sendall(data if kept is None else kept + data)
            self.was_answered = True
        finally:
            self.is_sending = False
            self.since, self.until = 0.0, math.inf

    def flush(self) -> None:
        """Send what is held back."""
        self._is_first = False
        if self._kept is not None:
            self.sendall(b"")

    def send(self, data: bytes, flags: int = 0) -> int:
        """Send some of the data. With MSG_DONTWAIT nothing blocks, nor do other greenlets run."""
        sent: int = (self._sock._sock if flags & socket.MSG_DONTWAIT else self._sock).send(data, flags)
        return sent

    def end_input(self) -> None:
        """Receive no more: the connection ends with its answer, which the client gets although it may still send."""
        self._is_ended = True
        self._turns.take()  # many may end at once

    def shutdown(self, how: int) -> None:
        """End a direction. Whoever waits for the client's bytes gets none."""
        if how != socket.SHUT_RD:
            self.flush()
        self._sock._sock.shutdown(how)  # gevent's own raises an error in the greenlet that waits

    def drop(self) -> None:
        """Make its greenlet end, which waits for the client: with an end of the input, or a reset while it sends.

        A request that has just come is still answered.
        """
        self.is_dropped = True
        plain = self._sock._sock
        with contextlib.suppress(OSError):
            if self.is_sending:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            plain.shutdown(socket.SHUT_RDWR if self.is_sending else socket.SHUT_RD)
        if self._woken is not None:
            self._woken.set()
        if self._waiter is not None:
            error = ConnectionResetError(errno.ECONNRESET, "The connection was dropped.")
            gevent.get_hub().loop.run_callback(self._waiter.throw, error)

    def close(self) -> None:
        """Close; after `end_input`, let the client read the answer first, which a reset would discard."""
        if self._is_ended:
            with contextlib.suppress(OSError), gevent.Timeout(LINGER_SECONDS, False):
                self._sock.shutdown(socket.SHUT_WR)
                while self._sock.recv(DISCARDED_AT_ONCE):
                    pass
        self._sock.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class Connections:
    """The open connections of this process."""

    def __init__(self, limits: Limits, turns: Turns) -> None:
        self._limits, self._turns = limits, turns
        self._open: set[Connection] = set()
        self._count = 0  # of the open ones, without those that are dropped
        self._of_host: Counter[str] = Counter()
        self._timer = gevent.get_hub().loop.timer(CHECK_SECONDS, CHECK_SECONDS, ref=False)
        self._timer.start(self._drop_late)

    @contextlib.contextmanager
    def opened(self, sock: Any, address: Any) -> Iterator[Connection]:
        """Keep a new connection in the table during the block; where there is no room, drop those idle for longest."""
        limits = self._limits
        connection = Connection(sock, host_of(address), limits, self._turns)
        if self._count >= limits.most:
            self._drop_idle(self._open, 1 + limits.most // DROPPED_AT_ONCE)
        if limits.most_of_one and self._of_host[connection.host] >= limits.most_of_one:
            of_host = [each for each in self._open if each.host == connection.host]
            self._drop_idle(of_host, 1 + limits.most_of_one // DROPPED_AT_ONCE)
        self._open.add(connection)
        self._add(connection, 1)
        try:
            yield connection
        finally:
            self._open.remove(connection)
            if not connection.is_dropped:
                self._add(connection, -1)

    def end_idle(self, before: float) -> None:
        """Drop the connections that have waited for a request since `before` (monotonic seconds)."""
        for connection in [each for each in self._open if each.is_idle and each.since <= before]:
            self._drop(connection)

    def _drop_idle(self, among: Collection[Connection], count: int) -> None:
        """Drop those that have waited for their client for longest.

        First those that do not take their answer, then those with more requests than one, then those that never had an
        answer.
        """
        deaf_since = time.monotonic() - DEAF_SECONDS

        def rank(each: Connection) -> tuple[bool, bool, bool, float]:
            is_deaf = each.is_sending and each.since < deaf_since
            return not is_deaf, not each.is_pipelined, each.was_answered, each.since

        waiting = [each for each in among if each.since > 0 and not each.is_dropped]
        for connection in nsmallest(count, waiting, key=rank):
            self._drop(connection)

    def _drop_late(self) -> None:
        now = time.monotonic()
        for connection in [each for each in self._open if each.until <= now]:
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        """It counts no longer, although its greenlet has yet to end."""
        if not connection.is_dropped:
            self._add(connection, -1)
        connection.drop()

    def _add(self, connection: Connection, change: int) -> None:
        self._count += change
        self._of_host[connection.host] += change
        if not self._of_host[connection.host]:
            del self._of_host[connection.host]


def host_of(address: Any) -> str:
    """Return what counts as one address: an IPv4 address, an IPv6 network of 64 bits, "" for a Unix socket."""
    if not isinstance(address, tuple):
        return ""
    host = str(address[0])
    if ":" not in host:
        return host
    parsed = ipaddress.IPv6Address(host.partition("%")[0])
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, NETWORK_OF_A_HOST), strict=False))
