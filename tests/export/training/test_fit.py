"""Fit a network: resume after a kill, float16, one tracing."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.data.datasets import DataSet
from export.training.fit import Build, Plan, fit
from tests.export.idx_files import noise, write_idx_files

pytest.importorskip("tensorflow")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),  # Keras
    pytest.mark.filterwarnings("ignore:currentThread:DeprecationWarning"),  # KerasTuner
    pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner"),
]

PLAN = Plan(epochs=3, batch_size=16, learning_rate=1e-2, patience=5, seed=0)

ROOT = Path(__file__).parents[3]
EPOCHS = 30  # some of which end before the signal arrives


@pytest.fixture
def bars(make_bars: Callable[[], DataSet]) -> DataSet:
    return make_bars()


def test_a_killed_training_resumes_after_its_last_epoch(bars: DataSet, build_tiny: Build, tmp_path: Path) -> None:
    plan = replace(PLAN, epochs=4, backups=tmp_path)
    started: list[int] = []

    class Killed(BaseException):
        """Ends the training as SIGTERM or Ctrl-C would."""

    import keras

    def die_in_the_third_epoch(epoch: int, _logs: Any = None) -> None:
        started.append(epoch)
        if len(started) == 3:
            raise Killed

    watcher = keras.callbacks.LambdaCallback(on_epoch_begin=die_in_the_third_epoch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.training.fit.training_progress", lambda *_: [watcher])
        with pytest.raises(Killed):
            fit(bars.train, bars.validation, build_tiny, plan, 2, mark="bars")
        fitted = fit(bars.train, bars.validation, build_tiny, plan, 2, mark="bars")
    assert started == [0, 1, 2, 2, 3]
    assert fitted.core is not None
    assert list(tmp_path.iterdir()) == []


def test_another_plan_does_not_resume_a_training(bars: DataSet, build_tiny: Build, tmp_path: Path) -> None:
    (tmp_path / ".resume-of-another").mkdir()
    fit(bars.train, bars.validation, build_tiny, replace(PLAN, epochs=1, backups=tmp_path), 2, mark="bars")
    assert [path.name for path in tmp_path.iterdir()] == [".resume-of-another"]


def test_mixed_precision_serves_float32(bars: DataSet, build_tiny: Build) -> None:
    fitted = fit(bars.train, bars.validation, build_tiny, replace(PLAN, epochs=1, mixed_precision=True), 2)
    assert {weight.dtype for weight in fitted.core.weights} == {"float32"}
    assert all(layer.compute_dtype == "float32" for layer in fitted.core.layers)


def test_a_step_of_training_is_traced_once(bars: DataSet, build_tiny: Build) -> None:
    import keras

    traced: list[bool] = []

    class Watching(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any, training: bool | None = None) -> Any:
            if training:
                traced.append(training)
            return x

    def build(shape: tuple[int, int, int], classes: int) -> Any:
        return keras.Sequential([build_tiny(shape, classes), Watching()])

    fit(bars.train, bars.validation, build, replace(PLAN, epochs=2), 2)
    assert len(traced) == 1


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    """Images whose first row gives the class away, in the four files of MNIST."""
    splits = []
    for images, labels in (noise(600), noise(100)):
        dark = images // 3
        dark[np.arange(len(labels)), 2 * labels.astype(int) + 4] = 250
        splits.append((dark, labels))
    write_idx_files(tmp_path / "idx", *splits)
    return tmp_path / "idx"


def test_the_same_command_resumes_a_killed_training_and_publishes(idx_folder: Path, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "export", "fashion", "--data", str(idx_folder), "--arch", "dense"),
        *("--epochs", str(EPOCHS), "--augment", "none"),
        *("--out", str(tmp_path / "models"), "--reports", str(tmp_path / "reports")),
    ]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    for line in first.stderr:
        if line.startswith(f"epoch 6/{EPOCHS}"):  # which has ended
            first.kill()
            break
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert not list((tmp_path / "models").glob("fashion/[0-9]*"))

    again = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "resuming a killed training" in again.stderr
    epochs = [int(number) for number in re.findall(rf"^epoch (\d+)/{EPOCHS}", again.stderr, re.MULTILINE)]
    assert epochs[0] > 6
    assert epochs == list(range(epochs[0], EPOCHS + 1, 6))  # a few of them are printed
    assert again.stdout.strip() == str(tmp_path / "models" / "fashion" / "1")
    assert [path.name for path in (tmp_path / "models" / "fashion").iterdir()] == ["1"]  # no draft, no checkpoint
