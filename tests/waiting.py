"""Wait for what other threads and processes do, without a fixed sleep."""

import time
from collections.abc import Callable
from pathlib import Path

SECONDS = 30.0


def until(holds: Callable[[], object], seconds: float = SECONDS) -> None:
    """Block until `holds` returns something true. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"it did not come true in {seconds:g} s"
        time.sleep(0.005)


def cpu_ticks(pid: int) -> int:
    """Return the CPU time that a process has used, in clock ticks (proc(5), utime and stime of /proc/PID/stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
