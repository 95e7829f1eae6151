"""Memory shared by the gateway processes of one gunicorn, mapped before they are forked.

Plain numbers, each written by one process: there is no lock that a dead process could hold.
"""

import mmap

PLACES = 1024  # more than the processes that ever run at a time
DRAINING, GENERATION = 0, 1
IN_FLIGHT = slice(2, 2 + PLACES)
CONNECTIONS = slice(2 + PLACES, 2 + 2 * PLACES)  # open ones plus one; 0 for a process that accepts none


class Shared:
    """The shared numbers. Without gunicorn they belong to this process alone, whose place is 0."""

    def __init__(self) -> None:
        self._numbers = memoryview(mmap.mmap(-1, 4 * CONNECTIONS.stop)).cast("I")
        self._free = list(range(PLACES - 1, -1, -1))  # used by the arbiter only
        self.place = 0

    @property
    def is_draining(self) -> bool:
        """The service is about to stop: a load balancer should send no more requests here."""
        return bool(self._numbers[DRAINING])

    def drain(self) -> None:
        """Mark the service as draining."""
        self._numbers[DRAINING] = 1

    @property
    def generation(self) -> int:
        """A number that changes when the API keys are to be read again."""
        return self._numbers[GENERATION]

    def renew(self) -> None:
        """Make every process read the API keys again before its next request."""
        self._numbers[GENERATION] += 1

    def take_place(self) -> int:
        """Take a place for a new process. Called by gunicorn's arbiter only."""
        return self._free.pop()

    def free_place(self, place: int) -> None:
        """Clear the numbers of a process that has ended. Called by gunicorn's arbiter only."""
        self._numbers[IN_FLIGHT.start + place] = self._numbers[CONNECTIONS.start + place] = 0
        self._free.append(place)

    def count(self, in_flight: int) -> None:
        """Set the requests in flight in this process."""
        self._numbers[IN_FLIGHT.start + self.place] = in_flight

    def in_flight(self) -> int:
        """Return the requests in flight in all processes."""
        return sum(self._numbers[IN_FLIGHT])

    def hold(self, connections: int) -> None:
        """Set the open connections of this process, which accepts more."""
        self._numbers[CONNECTIONS.start + self.place] = connections + 1

    def hold_no_more(self) -> None:
        """Mark this process as accepting no more connections."""
        self._numbers[CONNECTIONS.start + self.place] = 0

    def fewest_elsewhere(self) -> int | None:
        """Return the fewest connections of another process that accepts more; None where there is none."""
        held = self._numbers[CONNECTIONS].tolist()
        held[self.place] = 0
        return min(set(held) - {0}) - 1 if any(held) else None


SHARED = Shared()
