"""Turns of a gevent worker's requests, between which its loop accepts connections and answers probes.

gevent runs whoever has received something in one turn of its loop: with a thousand requests there, a new connection
waits for all of them.
"""

import time
from collections import deque

import gevent
from gevent.hub import Waiter

SECONDS = 0.003  # of work in one turn of the loop, after which requests wait in line


class Turns:
    """The lines of the greenlets that have work to do: one of probes, and one of all others."""

    def __init__(self) -> None:
        self._probes: deque[Waiter] = deque()
        self._others: deque[Waiter] = deque()
        self._until = 0.0  # monotonic seconds; for this turn of the loop
        loop = gevent.get_hub().loop
        self._check = loop.check(ref=False)  # after the loop has waited for events, before it handles them
        self._check.start(self._begin)
        self._timer = loop.timer(0)

    def take(self) -> None:
        """Wait for a turn."""
        waiter = self.join()
        if waiter is not None:
            waiter.get()

    def join(self, *, is_probe: bool = False) -> Waiter | None:
        """Go ahead at once (None) where nobody waits and this turn of the loop is young, else wait in line."""
        if not (self._probes or self._others):
            if time.monotonic() < self._until:
                return None
            self._timer.start(self._run)
        waiter = Waiter()
        (self._probes if is_probe else self._others).append(waiter)
        return waiter

    def _begin(self) -> None:
        self._until = time.monotonic() + SECONDS

    def _run(self) -> None:
        """Run one probe, one other and so on, each until it waits for something, and the rest in the next turn."""
        until = time.monotonic() + SECONDS
        while self._probes or self._others:
            for line in (self._probes, self._others):
                if line:
                    line.popleft().switch(None)
            if time.monotonic() >= until:
                break
        if self._probes or self._others:
            self._timer.start(self._run)
