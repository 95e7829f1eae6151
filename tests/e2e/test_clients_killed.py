"""Scoring through the whole house, killed with -9 while its servers are killed too: one row for each input."""

import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from sightline import Client

from clients.batch.rows import FAILED, Row
from clients.batch.writers import read_rows
from serving.contract.golden import read_golden
from serving.contract.versions import version_dirs
from tests.e2e.conftest import ROOT, Service, start_service, stop_service
from tests.e2e.exported_models import Exported

COUNT = 1000
VICTIMS = ("model server", "", "gateway", "")  # what dies under each run before the run itself does


@pytest.fixture
def own_service(exported: Exported) -> Iterator[Service]:
    service = start_service(exported.models)
    yield service
    stop_service(service)


def write_pictures(folder: Path, models: Path) -> None:
    """The golden digits, turned by one degree more each time round; one in a hundred is broken."""
    golden = read_golden(version_dirs(models / "digits")[-1]).pictures
    folder.mkdir()
    for number in range(COUNT):
        path = folder / f"{number:05}.png"
        if number % 100 == 99:
            path.write_bytes(b"broken")
        else:
            Image.open(io.BytesIO(golden[number % len(golden)])).rotate(number // len(golden)).save(path)


def unlike(one: Row, other: Row) -> bool:
    """Tell whether two rows differ about a picture. A score's last bits depend on its neighbours in the batch."""
    named = ("path", "status", "label", "model", "version", "sha256", "error_code")
    close = one.score == other.score or abs((one.score or 0) - (other.score or 0)) < 1e-5
    return not close or any(getattr(one, name) != getattr(other, name) for name in named)


def test_a_run_that_is_killed_beside_its_servers_gives_the_rows_of_an_undisturbed_one(
    own_service: Service, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "in", own_service.models)
    base = [sys.executable, "-m", "clients", "score", str(tmp_path / "in"), "--model", "digits", "--ordered"]
    base += ["--url", own_service.url, "--per-request", "4", "--concurrency", "2"]
    quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    whole, disturbed = tmp_path / "whole.csv", tmp_path / "killed.csv"
    assert subprocess.run([*base, "--out", str(whole)], check=False, **quiet).returncode == 1  # type: ignore[call-overload]
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # shown when the test fails
    moment = random.Random(seed)
    log = tmp_path / "killed.csv.journal-wal"
    kills = 0
    with Client(own_service.url) as client:
        for victim in VICTIMS:
            own_service.wait_until(client.is_ready)  # at its start a run waits for nobody
            process = subprocess.Popen([*base, "--out", str(disturbed)], **quiet)  # type: ignore[call-overload]
            own_service.wait_until(lambda process=process: log.exists() or process.poll() is not None)
            time.sleep(moment.uniform(0.1, 0.5))
            if victim:
                dead = own_service.children()[victim]
                os.kill(dead, signal.SIGKILL)  # the supervisor starts another
                time.sleep(moment.uniform(0, 0.5))
            kills += process.poll() is None
            process.kill()
            process.wait()
            if disturbed.exists():
                break
            if victim:  # the workers of a killed gateway answer for a moment more
                own_service.wait_until(
                    lambda victim=victim, dead=dead: own_service.children().get(victim, dead) != dead
                )
                own_service.wait_until(own_service.workers)
        own_service.wait_until(client.is_ready)
    assert kills >= 2
    done = subprocess.run([*base, "--out", str(disturbed)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    expected, found = list(read_rows(str(whole))), list(read_rows(str(disturbed)))
    assert len(found) == len(expected) == COUNT
    assert [(one, other) for one, other in zip(expected, found, strict=True) if unlike(one, other)] == []
    assert sum(row.status == FAILED for row in found) == COUNT // 100
