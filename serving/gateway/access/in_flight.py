"""The bound of requests in flight, per process and over all; a request whose client has gone does not count.

A client that retries at once would otherwise take the time of those that are answered: with 256 of them, 96 good
answers a second were left of 837. So refusals are paced, and a refused connection rests before its next request.
"""

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from serving.contract.errors import Overloaded
from serving.gateway.workers.shared import Shared

CHECK_SECONDS = 0.25  # between two checks for clients that have gone
ESTABLISHED, CLOSE_WAIT = 1, 8  # linux/tcp_states.h; the first byte of TCP_INFO is the state
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"  # a client of HTTP/1.1 reads it unasked (RFC 9110, section 15.2)
REFUSALS_PER_SECOND = 300  # of a process that waits in gevent's loop; they take less than a tenth of its time
REFUSED_AT_ONCE = 30  # before they are paced
REST = 0.5  # of Retry-After, for which a refused connection rests; clients vary theirs down to this share


@dataclass(slots=True, eq=False)
class Slot:
    """The place of one request.

    connection: its client's socket; None where it is unknown. may_ask: the client, which has closed its side, may be
    sent an interim answer, to find out whether it still reads.
    work: pieces of its work that still run; the place stays taken until they have ended.
    """

    connection: Any = None
    may_ask: bool = False
    is_abandoned: bool = False
    is_left: bool = False
    is_free: bool = False
    work: int = 0


class InFlight:
    """The slots of this process. most: slots of this process; most_in_all: of all processes, 0 for no limit.

    sleep: lets others run for so many seconds; None: refusals are not paced, as nobody else could use the time.
    """

    def __init__(
        self, shared: Shared, most: int, most_in_all: int = 0, sleep: Callable[[float], object] | None = None
    ) -> None:
        self._shared = shared
        self._most = most
        self._most_in_all = most_in_all
        self._lock = threading.Lock()
        self._slots: set[Slot] = set()
        self._watching = False
        self._sleep = sleep
        self._next_refusal = 0.0

    @property
    def is_full(self) -> bool:
        """One more request would be refused now."""
        return self._reason(more=1) is not None

    def wait_for_refusal(self, connection: Any = None) -> Overloaded | None:
        """Return the error of a request that is to be refused, in its turn; None where there is room by then.

        connection: waits where it can, and rests before its next request.
        """
        if self._sleep is not None:
            now = time.monotonic()
            self._next_refusal = max(
                self._next_refusal + 1 / REFUSALS_PER_SECOND, now - REFUSED_AT_ONCE / REFUSALS_PER_SECOND
            )
            if self._next_refusal > now:
                getattr(connection, "pause", self._sleep)(self._next_refusal - now)
        error = self._reason(more=1)
        if error is not None and hasattr(connection, "rest"):
            connection.rest(REST * error.retry_after_seconds)
        return error

    def enter(self, connection: Any = None, *, may_ask: bool = False) -> Slot:
        """Take a slot for one more request. Raises Overloaded, in its turn."""
        slot = Slot(connection, may_ask)
        error = self._take(slot)
        if error is not None:
            error = self.wait_for_refusal(connection) or self._take(slot)
        if error is not None:
            raise error
        return slot

    def leave(self, slot: Slot) -> None:
        """Give the slot back, once its work has ended. A second call does nothing."""
        with self._lock:
            slot.is_left = True
            self._free_unused(slot)

    def hold(self, slot: Slot) -> Callable[[], None]:
        """Keep the slot taken, whatever becomes of its request, until the function that this returns is called."""
        with self._lock:
            slot.work += 1

        def release() -> None:
            with self._lock:
                slot.work -= 1
                self._free_unused(slot)

        return release

    def check_clients(self) -> None:
        """Free the slots of clients that have gone, and mark their requests as abandoned."""
        with self._lock:
            for slot in [slot for slot in self._slots if _has_gone(slot)]:
                slot.is_abandoned = True
                self._free_unused(slot)

    def _take(self, slot: Slot) -> Overloaded | None:
        with self._lock:
            # Count first, then check: two simultaneous requests may both be refused, but never both exceed the limit.
            self._slots.add(slot)
            self._shared.count(len(self._slots))
            error = self._reason()
            if error is not None:
                self._free(slot)
                slot.is_free = False
                return error
            watch = slot.connection is not None and not self._watching
            self._watching = self._watching or watch
        if watch:
            threading.Thread(target=self._check_forever, name="clients", daemon=True).start()
        return None

    def _reason(self, more: int = 0) -> Overloaded | None:
        """Return the error where the slots, and so many more, exceed a limit."""
        if len(self._slots) + more > self._most:
            return Overloaded(
                f"{self._most} requests are in flight in this process, the limit (SIGHTLINE_THREADS).",
                hint="Try again in a moment.",
            )
        if self._most_in_all and self._shared.in_flight() + more > self._most_in_all:
            return Overloaded(
                f"{self._most_in_all} requests are in flight, the limit (SIGHTLINE_MAX_IN_FLIGHT).",
                hint="Try again in a moment.",
            )
        return None

    def _check_forever(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(CHECK_SECONDS)
            self.check_clients()

    def _free_unused(self, slot: Slot) -> None:
        if (slot.is_left or slot.is_abandoned) and not slot.work and not slot.is_free:
            self._free(slot)

    def _free(self, slot: Slot) -> None:
        slot.is_free = True
        self._slots.discard(slot)
        self._shared.count(len(self._slots))


def _has_gone(slot: Slot) -> bool:
    """Return True when the client no longer reads. Only asks the kernel: nothing blocks.

    A client that has closed its side may have gone, or it has said all that it wants to and reads on (a half-close).
    An interim answer tells them apart: whoever has gone resets the connection.
    """
    if slot.connection is None or not hasattr(socket, "TCP_INFO"):
        return False
    try:
        state: int = slot.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        if state == CLOSE_WAIT and slot.may_ask and not slot.is_left:  # before its answer
            slot.may_ask = False
            slot.connection.send(CONTINUE, socket.MSG_DONTWAIT)
    except OSError:  # not TCP, closed on our side, or its buffers are full
        return False
    return state not in (ESTABLISHED, CLOSE_WAIT)
