"""A run that is killed, with servers that come and go: one row for each input, equal to an undisturbed run."""

import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from clients.batch.rows import Row
from clients.batch.writers import read_rows
from tests.clients.shades import Serve, ShadePredictor, png

pytestmark = pytest.mark.integration


def write_pictures(folder: Path, count: int) -> None:
    """Pictures of every shade, in folders, one in a hundred of them broken."""
    for number in range(count):
        path = folder / f"{number % 7}" / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"broken" if number % 100 == 99 else png(number * 37 % 256, side=8))


def score_command(url: str, source: Path, output: Path, *more: str) -> list[str]:
    command = [sys.executable, "-m", "clients", "score", str(source), "--model", "shades", "--out", str(output)]
    return [*command, "--url", url, "--per-request", "16", "--concurrency", "4", *more]


def compared(path: Path) -> list[Row]:
    """The rows of a file, less what no two runs have in common."""
    return [replace(row, ms=None) for row in read_rows(str(path))]


def check_kills(serve: Serve, tmp_path: Path, *, count: int, kills: int, longest: float, pace: float) -> None:
    write_pictures(tmp_path / "in", count)
    predictor = ShadePredictor(seconds=pace)
    service = serve(predictor=predictor)
    undisturbed, disturbed = tmp_path / "whole.csv", tmp_path / "killed.csv"
    done = subprocess.run(score_command(service.url, tmp_path / "in", undisturbed, "--ordered"), check=False)
    assert done.returncode == 1  # some are broken
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # shown when the test fails
    moment = random.Random(seed)
    command = score_command(service.url, tmp_path / "in", disturbed, "--ordered")
    killed = 0
    while killed < kills:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moment.uniform(0.3, longest))
        if moment.random() < 0.5:  # a server that goes away under a run, and comes back
            service.stop()
            time.sleep(moment.uniform(0, 0.3))
            service = serve(port=service.port, predictor=predictor)
            time.sleep(moment.uniform(0, 0.5))
        if process.poll() is not None and disturbed.exists():
            break  # it came to its end before we did
        process.kill()
        process.wait()
        killed += 1
    done = subprocess.run(command, check=False)
    assert done.returncode == 1
    assert compared(disturbed) == compared(undisturbed)
    assert killed >= kills // 2


def test_kills_lose_nothing_and_repeat_nothing(serve: Serve, tmp_path: Path) -> None:
    check_kills(serve, tmp_path, count=1500, kills=4, longest=2.5, pace=0.1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_kills_over_five_thousand_pictures(serve: Serve, tmp_path: Path) -> None:
    check_kills(serve, tmp_path, count=5000, kills=20, longest=2.5, pace=0.2)
