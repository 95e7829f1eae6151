"""The number of CPUs that this process may use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.contract.machine import usable_cpus

ALL = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", ALL),
        ("100000 100000\n", 1),
        ("1000 100000\n", 1),
        ("6400000 100000\n", ALL),
        ("", ALL),
        ("nonsense", ALL),
    ],
)
def test_a_container_s_limit_counts(tmp_path: Path, text: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert usable_cpus(tmp_path / "cpu.max") == expected


def test_half_a_cpu_more_is_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)  # noqa: ARG005
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert usable_cpus(tmp_path / "cpu.max") == 3
    assert usable_cpus(tmp_path / "missing") == 8


@pytest.mark.integration
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_affinity_counts() -> None:
    script = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from serving.contract.machine import usable_cpus; print(usable_cpus())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
