"""How many requests are in flight, in this process and in all; those whose client has gone count no longer."""

import socket
import threading
from dataclasses import dataclass
from typing import Any

from serving.contract.errors import Overloaded
from serving.gateway.workers.shared import Shared

LOOK_SECONDS = 0.25  # how often is looked whether clients are still there
ESTABLISHED = 1  # linux/tcp.h; the first byte of TCP_INFO is the state


@dataclass(slots=True, eq=False)
class Slot:
    """One request. connection: its client's socket, or None where that is not known."""

    connection: Any = None
    is_abandoned: bool = False
    is_free: bool = False


class InFlight:
    """Slots of this process. most: in this process; most_in_all: in all of them together, 0 for no such bound."""

    def __init__(self, shared: Shared, most: int, most_in_all: int = 0) -> None:
        self._shared = shared
        self._most = most
        self._most_in_all = most_in_all
        self._lock = threading.Lock()
        self._slots: set[Slot] = set()
        self._watching = False

    def enter(self, connection: Any = None) -> Slot:
        """A slot for one more request. Raises Overloaded."""
        slot = Slot(connection)
        with self._lock:
            if len(self._slots) >= self._most:
                raise Overloaded(
                    f"{self._most} requests are in flight in this process; that is the limit (SIGHTLINE_THREADS)",
                    hint="Try again in a moment.",
                )
            self._slots.add(slot)
            self._shared.count(len(self._slots))
            # Counted before it is looked: two that come at once may both be refused, never both be one too many.
            if self._most_in_all and self._shared.in_flight() > self._most_in_all:
                self._free(slot)
                raise Overloaded(
                    f"{self._most_in_all} requests are in flight; that is the limit (SIGHTLINE_MAX_IN_FLIGHT)",
                    hint="Try again in a moment.",
                )
            watch = connection is not None and not self._watching
            self._watching = self._watching or watch
        if watch:
            threading.Thread(target=self._look_for_ever, name="clients", daemon=True).start()
        return slot

    def leave(self, slot: Slot) -> None:
        """The request is done with. Once is enough, twice does no harm."""
        with self._lock:
            if not slot.is_free:
                self._free(slot)

    def look(self) -> None:
        """Free the slots of clients that have gone; what is asked for them is abandoned."""
        with self._lock:
            for slot in [slot for slot in self._slots if _has_gone(slot.connection)]:
                slot.is_abandoned = True
                self._free(slot)

    def _look_for_ever(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(LOOK_SECONDS)
            self.look()

    def _free(self, slot: Slot) -> None:
        slot.is_free = True
        self._slots.discard(slot)
        self._shared.count(len(self._slots))


def _has_gone(connection: Any) -> bool:
    """The client has closed its side. Asks the kernel for the state: nothing is read, and nothing waits."""
    if connection is None or not hasattr(socket, "TCP_INFO"):
        return False
    try:
        state: int = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:  # no TCP, or closed on our side
        return False
    return state != ESTABLISHED
