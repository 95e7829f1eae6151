"""kill -9 in the middle of a training, with the real command."""

import gzip
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export.data.datasets import IDX_FILES
from tests.e2e.conftest import ROOT

pytest.importorskip("tensorflow")

EPOCHS = 30  # a few of which are over before the signal arrives
PICTURES = (600, 100)


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    """Pictures of noise whose first row gives the class away, in the four files of MNIST."""
    random = np.random.default_rng(0)
    arrays = []
    for n in PICTURES:
        labels = (np.arange(n) % 10).astype(np.uint8)
        images = random.integers(0, 90, (n, 28, 28)).astype(np.uint8)
        images[np.arange(n), 2 * labels + 4] = 250
        arrays += [images, labels]
    for name, values in zip(IDX_FILES, arrays, strict=True):
        header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
        (tmp_path / name).write_bytes(gzip.compress(header + values.tobytes(), 1))
    return tmp_path


def test_the_same_command_takes_up_a_killed_training_and_publishes(idx_folder: Path, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "export", "fashion", "--data", str(idx_folder), "--arch", "dense"),
        *("--epochs", str(EPOCHS), "--augment", "none"),
        *("--out", str(tmp_path / "models"), "--reports", str(tmp_path / "reports")),
    ]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    for line in first.stderr:
        if line.startswith(f"epoch 2/{EPOCHS}"):  # which has ended
            first.kill()
            break
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert not list((tmp_path / "models").glob("fashion/[0-9]*"))

    again = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "taking up a training that was killed" in again.stderr
    epochs = [int(number) for number in re.findall(rf"^epoch (\d+)/{EPOCHS}", again.stderr, re.MULTILINE)]
    assert epochs[0] >= 3
    assert epochs == list(range(epochs[0], EPOCHS + 1))
    assert again.stdout.strip() == str(tmp_path / "models" / "fashion" / "1")
    assert [path.name for path in (tmp_path / "models" / "fashion").iterdir()] == ["1"]  # no draft, no checkpoint
