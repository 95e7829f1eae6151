"""The share of the machine that this process may use."""

import math
import os
from pathlib import Path

CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # of the container: microseconds of CPU in a period, or `max`


def usable_cpus(limit_file: Path = CPU_LIMIT) -> int:
    """Count the CPUs that this process may keep busy, at least 1: its affinity (taskset) and its container's limit.

    `os.cpu_count` counts the machine's, also under `docker run --cpus 2`.
    Source of the file: https://docs.kernel.org/admin-guide/cgroup-v2.html, cpu.max.
    """
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        cpus = os.cpu_count() or 1
    try:
        quota, period = limit_file.read_text().split()
        allowed = math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no container, no limit (`max`), or another kind of machine
        return cpus
    return max(1, min(cpus, allowed))
