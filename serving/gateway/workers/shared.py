"""What all gateway processes of one gunicorn see of each other: a page of memory that is there before they are forked.

Plain numbers, each written by one process: no lock that a process could die with.
"""

import mmap

PLACES = 1024  # more processes than ever live at a time, those that end included
DRAINING, GENERATION = 0, 1
IN_FLIGHT = slice(2, 2 + PLACES)
CONNECTIONS = slice(2 + PLACES, 2 + 2 * PLACES)  # one more than are open; 0 of a process that takes none


class Shared:
    """The page. Without gunicorn: of this process alone, whose place is 0."""

    def __init__(self) -> None:
        self._numbers = memoryview(mmap.mmap(-1, 4 * CONNECTIONS.stop)).cast("I")
        self._free = list(range(PLACES - 1, -1, -1))  # the arbiter's; it alone hands out places
        self.place = 0

    @property
    def is_draining(self) -> bool:
        """The service is about to stop: whoever spreads requests should send none here any more."""
        return bool(self._numbers[DRAINING])

    def drain(self) -> None:
        """Say so."""
        self._numbers[DRAINING] = 1

    @property
    def generation(self) -> int:
        """Changes when the API keys are to be read again."""
        return self._numbers[GENERATION]

    def renew(self) -> None:
        """Have every process read the API keys again before its next request."""
        self._numbers[GENERATION] += 1

    def take_place(self) -> int:
        """A place for a new process. Of the arbiter."""
        return self._free.pop()

    def free_place(self, place: int) -> None:
        """The process has ended, however it did: nothing of it is in flight or open. Of the arbiter."""
        self._numbers[IN_FLIGHT.start + place] = self._numbers[CONNECTIONS.start + place] = 0
        self._free.append(place)

    def count(self, in_flight: int) -> None:
        """So many requests are in flight in this process."""
        self._numbers[IN_FLIGHT.start + self.place] = in_flight

    def in_flight(self) -> int:
        """In all processes."""
        return sum(self._numbers[IN_FLIGHT])

    def hold(self, connections: int) -> None:
        """So many are open in this process, and it takes more."""
        self._numbers[CONNECTIONS.start + self.place] = connections + 1

    def hold_no_more(self) -> None:
        """This process takes no more connections."""
        self._numbers[CONNECTIONS.start + self.place] = 0

    def fewest_elsewhere(self) -> int | None:
        """The fewest connections of another process that takes more; None where there is no other."""
        held = self._numbers[CONNECTIONS].tolist()
        held[self.place] = 0
        return min(set(held) - {0}) - 1 if any(held) else None


SHARED = Shared()
