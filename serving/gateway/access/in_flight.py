"""The bound of requests in flight, per process and over all; a request whose client has gone does not count."""

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from serving.contract.errors import Overloaded
from serving.gateway.workers.shared import Shared

CHECK_SECONDS = 0.25  # between two checks for clients that have gone
ESTABLISHED = 1  # linux/tcp.h; the first byte of TCP_INFO is the state


@dataclass(slots=True, eq=False)
class Slot:
    """The place of one request. connection: its client's socket; None where it is unknown.

    work: pieces of its work that still run; the place stays taken until they have ended.
    """

    connection: Any = None
    is_abandoned: bool = False
    is_left: bool = False
    is_free: bool = False
    work: int = 0


class InFlight:
    """The slots of this process. most: slots of this process; most_in_all: of all processes, 0 for no limit."""

    def __init__(self, shared: Shared, most: int, most_in_all: int = 0) -> None:
        self._shared = shared
        self._most = most
        self._most_in_all = most_in_all
        self._lock = threading.Lock()
        self._slots: set[Slot] = set()
        self._watching = False

    def enter(self, connection: Any = None) -> Slot:
        """Take a slot for one more request. Raises Overloaded."""
        slot = Slot(connection)
        with self._lock:
            if len(self._slots) >= self._most:
                raise Overloaded(
                    f"{self._most} requests are in flight in this process, the limit (SIGHTLINE_THREADS).",
                    hint="Try again in a moment.",
                )
            self._slots.add(slot)
            self._shared.count(len(self._slots))
            # Count first, then check: two simultaneous requests may both be refused, but never both exceed the limit.
            if self._most_in_all and self._shared.in_flight() > self._most_in_all:
                self._free(slot)
                raise Overloaded(
                    f"{self._most_in_all} requests are in flight, the limit (SIGHTLINE_MAX_IN_FLIGHT).",
                    hint="Try again in a moment.",
                )
            watch = connection is not None and not self._watching
            self._watching = self._watching or watch
        if watch:
            threading.Thread(target=self._check_forever, name="clients", daemon=True).start()
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
            for slot in [slot for slot in self._slots if _has_gone(slot.connection)]:
                slot.is_abandoned = True
                self._free_unused(slot)

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


def _has_gone(connection: Any) -> bool:
    """Return True when the client has closed its side. Only asks the kernel for the state: nothing blocks."""
    if connection is None or not hasattr(socket, "TCP_INFO"):
        return False
    try:
        state: int = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:  # not TCP, or closed on our side
        return False
    return state != ESTABLISHED
