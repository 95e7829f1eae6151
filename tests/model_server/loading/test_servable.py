"""A version is loaded on LiteRT where that agrees with the export, and else on TensorFlow."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.contract.golden import read_golden, write_golden
from serving.contract.manifest import write_manifest
from serving.contract.versions import TFLITE_FILE
from serving.model_server.loading.servable import LoadSettings, Servable, loader
from serving.model_server.metrics import Metrics
from serving.runtimes.opening import LITERT, TENSORFLOW, open_runtime, open_version
from serving.runtimes.runtime import NotFit, run_signature
from serving.runtimes.status import CallError
from serving.runtimes.tensorflow_session import TensorFlowRuntime
from tests.bars import scale_weights
from tests.model_server.server_process import ModelServer, running

pytestmark = pytest.mark.integration

IMAGE, PROBABILITIES = "serving_default_image:0", "StatefulPartitionedCall:0"
LIBRARY = "libtensorflow"  # part of the names of TensorFlow's native code


def pictures(n: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (n, 28, 28, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def full(bars_version: Path) -> TensorFlowRuntime:
    return TensorFlowRuntime(bars_version)


@pytest.fixture
def copied(tmp_path: Path, bars_version: Path) -> Path:
    return Path(shutil.copytree(bars_version, tmp_path / "bars" / "1"))


def load(directory: Path) -> Servable:
    return loader(LoadSettings(prefer_tflite=True), Metrics())("bars", 1, directory)


def retrained(version: Path) -> None:
    """Change the SavedModel's weights and the answers that are expected; model.tflite stays the old one."""
    scale_weights(version, 0.5)
    golden = read_golden(version)
    answers = run_signature(
        open_runtime(version, TENSORFLOW), "serving_default", {"image": golden.tensors}, "probabilities"
    )
    write_golden(version, replace(golden, probabilities=answers))


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut short": (lambda v: (v / TFLITE_FILE).write_bytes((v / TFLITE_FILE).read_bytes()[:3000]), "cannot be"),
    "no model": (lambda v: (v / TFLITE_FILE).write_bytes(b"not a model"), "cannot be loaded"),
    "a folder": (lambda v: ((v / TFLITE_FILE).unlink(), (v / TFLITE_FILE).mkdir()), "cannot be read"),
    "other answers": (retrained, "the answers on LiteRT differ by"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_tensorflow_runs_what_litert_does_not_run_rightly(
    copied: Path, full: TensorFlowRuntime, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    change, words = DAMAGES[damage]
    change(copied)
    write_manifest(copied)
    with pytest.raises(NotFit, match=words):
        open_version(copied, [LITERT])
    with caplog.at_level(logging.WARNING):
        servable = load(copied)
    assert "bars version 1 runs on TensorFlow, which takes longer: " in caplog.text
    (expected,), (answers,) = (model.run({IMAGE: pictures(3)}, [PROBABILITIES]) for model in (full, servable))
    assert np.array_equal(answers, expected) or damage == "other answers"


def test_a_damaged_saved_model_is_no_version_even_where_litert_could_run_it(copied: Path) -> None:
    (copied / "saved_model.pb").write_bytes(b"\xff\xff")
    write_manifest(copied)
    with pytest.raises(CallError):
        load(copied)


def has_tensorflow(server: ModelServer) -> bool:
    return LIBRARY in Path(f"/proc/{server.process.pid}/maps").read_text()


def test_a_server_loads_tensorflow_with_the_first_model_that_needs_it(
    copied: Path, models_dir: Path, tmp_path: Path, full: TensorFlowRuntime
) -> None:
    folder = copied.parents[1]
    (expected,) = full.run({IMAGE: pictures(5)}, [PROBABILITIES])
    with running(tmp_path, "--models", folder, "--enable_batching", "--prefer_tflite_model=true") as server:
        server.wait_for("bars", 1)
        before = server.predict("bars", {"image": pictures(5)})
        assert np.allclose(np.reshape(before.outputs["probabilities"].float_val, (5, 2)), expected, atol=1e-5, rtol=0)
        assert "runs on LiteRT" in server.log.read_text()
        assert not has_tensorflow(server)
        shutil.copytree(models_dir / "half_plus_two", tmp_path / "half")
        (tmp_path / "half").rename(folder / "half")
        server.wait_for("half", 123)
        assert has_tensorflow(server)
        answer = server.predict("half", {"x": np.array([[4.0]], np.float32)})
        assert list(answer.outputs["y"].float_val) == [4.0]
        assert server.predict("bars", {"image": pictures(5)}) == before
        assert server.stop() == 0


def test_a_server_that_is_told_to_runs_tensorflow(copied: Path, tmp_path: Path) -> None:
    with running(tmp_path, "--models", copied.parents[1], "--prefer_tflite_model=false") as server:
        server.wait_for("bars", 1)
        assert has_tensorflow(server)


@pytest.mark.parametrize("prefers_tflite", ["true", "false"])
def test_a_version_with_other_weights_is_refused_and_the_one_before_it_answers(
    copied: Path, tmp_path: Path, prefers_tflite: str
) -> None:
    second = Path(shutil.copytree(copied, copied.parent / "2"))
    scale_weights(second, 0.5)
    with running(tmp_path, "--models", copied.parents[1], f"--prefer_tflite_model={prefers_tflite}") as server:
        server.wait_for("bars", 1)  # as after a restart
        assert server.predict("bars", {"image": pictures(1)}).model_spec.version.value == 1
        reason = server.errors("bars")[2]
        assert "variables/variables.data-00000-of-00001 was changed" in reason
        write_manifest(second)  # of somebody who means it; model.tflite has the exported weights still
        if prefers_tflite == "true":
            server.wait_for("bars", 2)
            return
        server.wait_until(lambda: server.errors("bars")[2] != reason)
        assert "the answers on TensorFlow differ by" in server.errors("bars")[2]
        assert server.predict("bars", {"image": pictures(1)}).model_spec.version.value == 1
