"""Keep processes running: start them, restart those that die with back-off, stop all of them together."""

import contextlib
import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from serving.contract.errors import ProcessDied

log = logging.getLogger(__name__)

TICK_SECONDS = 0.1
STOP_SECONDS = 4.0  # between SIGTERM and SIGKILL
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
CHECK_SECONDS = 1.0  # between two health checks of a child
SILENT_SECONDS = 8.0  # without an answer and without using the CPU: stopped, or waiting for itself
BUSY_SILENT_SECONDS = 60.0  # without an answer while it computes: importing TensorFlow holds up everything else
IDLE_SHARE = 0.01  # of a CPU, below which a process does nothing
STEADY_SECONDS = 60.0  # a process that ran this long is restarted after the shortest delay again

PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Background(Protocol):
    """Work beside the children that ends by itself and may fail."""

    def tick(self) -> None:
        """Go on with it, without waiting."""

    def stop(self) -> None:
        """End it now."""


def end_with_parent() -> None:
    """Make a child end with the supervisor, even after kill -9. Runs in the child before its program. Linux only."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Check(Protocol):
    """A health check that never blocks."""

    def answered(self) -> bool:
        """Look whether the process has answered since the last call, and ask it again."""

    def forget(self) -> None:
        """Drop what was asked of a process that has ended."""


class SocketCheck:
    """Ask a server at a Unix socket. question: what it answers with anything at all."""

    def __init__(self, path: str, question: bytes) -> None:
        self._path, self._question = path, question
        self._asked: socket.socket | None = None

    def answered(self) -> bool:
        is_answered = False
        if self._asked is not None:
            try:
                is_answered = bool(self._asked.recv(64))
            except BlockingIOError:
                return False  # it is still being waited for
            except OSError:
                is_answered = False
            self.forget()
        asked = socket.socket(socket.AF_UNIX)
        asked.setblocking(False)
        try:
            asked.connect(self._path)
            asked.send(self._question)
        except OSError:  # not there yet, or its backlog is full
            asked.close()
        else:
            self._asked = asked
        return is_answered

    def forget(self) -> None:
        if self._asked is not None:
            self._asked.close()
            self._asked = None


class FileCheck:
    """Look at a file that the process touches in each turn of its loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = 0

    def answered(self) -> bool:
        before = self._seen
        with contextlib.suppress(OSError):
            self._seen = self._path.stat().st_mtime_ns
        return self._seen != before

    def forget(self) -> None:
        self._seen = 0
        self._path.unlink(missing_ok=True)


@dataclass(slots=True)
class Child:
    """One process to keep running. environ: its whole environment. stop_seconds: between SIGTERM and SIGKILL.

    check: kill the process that once answered and is silent; None: watch only whether it has ended.
    """

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]
    stop_seconds: float = STOP_SECONDS
    check: Check | None = None
    answered_at: float | None = None  # None: not yet since its start
    checked_at: float = 0.0
    cpu_seconds: float = 0.0  # when it last answered
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_again_at: float = 0.0
    delay_seconds: float = FIRST_DELAY_SECONDS

    def start(self, now: float) -> None:
        """Start it in its own session: Ctrl-C reaches the supervisor only, which stops the children in order."""
        self.process = subprocess.Popen(
            self.command,
            env={**self.environ, "PYTHONSAFEPATH": "1"},  # not the folder that one stands in
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 - the supervisor has one thread
        )
        self.started_at = self.checked_at = now
        self.answered_at = None

    def kill_if_silent(self, now: float) -> None:
        """Kill the process where it has stopped answering. It is then restarted as any that ends."""
        if self.check is None or self.process is None or now < self.checked_at + CHECK_SECONDS:
            return
        self.checked_at = now
        if self.check.answered():
            self.answered_at, self.cpu_seconds = now, cpu_seconds(self.process.pid)
            return
        silent = 0.0 if self.answered_at is None else now - self.answered_at
        if silent < SILENT_SECONDS:
            return
        is_idle = cpu_seconds(self.process.pid) - self.cpu_seconds < IDLE_SHARE * silent
        if is_idle or silent >= BUSY_SILENT_SECONDS:
            log.error("The %s has not answered for %.0f s and is killed.", self.name, silent)
            self.process.kill()  # a stopped process takes no other signal
            self.process.wait()
            self.check.forget()

    def died(self) -> int | None:
        """Return its exit status if it has ended, else None."""
        return None if self.process is None else self.process.poll()


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used; 0 where the system does not tell. Source: proc_pid_stat(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Supervisor:
    """Run children until told to stop. The last one is stopped first: its running requests need the others.

    until_ready: called at every tick until it returns True; a child that dies before that raises ProcessDied.
    background: runs until it is done or the supervisor stops. clock, sleep: monotonic seconds, replaceable in tests.
    """

    children: Sequence[Child]
    until_ready: Callable[[], bool]
    background: Background | None = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    stopping: bool = field(default=False, init=False)

    def run(self) -> None:
        """Start all children; return after `stop` was called and every child has ended."""
        try:
            for child in self.children:
                child.start(self.clock())
            ready = False
            while not self.stopping:
                self._revive(ready)
                if self.background is not None:
                    self.background.tick()
                ready = ready or self.until_ready()
                self.sleep(TICK_SECONDS)
        finally:
            if self.background is not None:
                self.background.stop()
            self._end_all()

    def stop(self) -> None:
        """End the run. Safe in a signal handler."""
        self.stopping = True

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a child, if it runs. Safe in a signal handler."""
        for child in self.children:
            if child.name == name and child.process is not None:
                child.process.send_signal(number)

    def _revive(self, ready: bool) -> None:
        now = self.clock()
        for child in self.children:
            if ready:
                child.kill_if_silent(now)
            status = child.died()
            if status is not None:
                if not ready:
                    raise ProcessDied(f"The {child.name} ended with status {status} while starting.")
                self._schedule(child, status, now)
            elif child.process is None and now >= child.start_again_at:
                child.start(now)

    def _schedule(self, child: Child, status: int, now: float) -> None:
        if now - child.started_at >= STEADY_SECONDS:
            child.delay_seconds = FIRST_DELAY_SECONDS
        log.error("The %s ended with status %d. It is restarted in %.1f s.", child.name, status, child.delay_seconds)
        child.process = None
        child.start_again_at = now + child.delay_seconds
        child.delay_seconds = min(2 * child.delay_seconds, LONGEST_DELAY_SECONDS)

    def _end_all(self) -> None:
        for group in (self.children[-1:], self.children[:-1]):
            running = [(child, child.process) for child in group if child.process is not None]
            for _, process in running:
                process.terminate()
            started = self.clock()
            while any(
                process.poll() is None and self.clock() < started + child.stop_seconds for child, process in running
            ):
                self.sleep(TICK_SECONDS)
            for child, process in running:
                process.kill()
                process.wait()
                if child.check is not None:
                    child.check.forget()
