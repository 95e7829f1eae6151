"""The number of requests that are under way at a time: as many as the service takes."""

from dataclasses import dataclass

FIRST_WIDTH = 2
SHORTEST_PAUSE = 0.1  # seconds; doubled with each refusal in a row
LONGEST_PAUSE = 5.0  # seconds


@dataclass(slots=True)
class Limiter:
    """Additive increase, multiplicative decrease, as TCP shares a line of unknown width (Chiu and Jain, 1989).

    Until the first refusal each success adds one request (slow start), later one for each round. A refusal halves the
    width, once for all the requests that were under way together, and asks for a pause.
    """

    most: int
    width: float = FIRST_WIDTH
    refusals: int = 0  # in a row
    _slow_start: bool = True
    _cut_at: float = float("-inf")  # seconds of the caller's clock

    def __post_init__(self) -> None:
        self.width = min(self.width, self.most)

    @property
    def requests(self) -> int:
        """The most requests that may be under way."""
        return int(self.width)

    def succeeded(self) -> None:
        """Widen after an answer."""
        self.refusals = 0
        self.width = min(self.most, self.width + (1 if self._slow_start else 1 / self.width))

    def refused(self, began: float, now: float) -> float:
        """Narrow after a refusal. Returns the seconds to wait before the next request.

        began: when the refused request was sent, and now: seconds of one clock.
        """
        self._slow_start = False
        if began >= self._cut_at:
            self.width = max(1.0, self.width / 2)
            self._cut_at = now
            self.refusals += 1
        return float(min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** min(self.refusals - 1, 10)))
