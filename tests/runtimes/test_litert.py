"""LiteRT answers as TensorFlow does, and refuses what the signature does not declare."""

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.contract.card import CARD_FILE
from serving.contract.versions import TFLITE_FILE
from serving.runtimes.litert import LiteRtRuntime
from serving.runtimes.runtime import NotFit
from serving.runtimes.status import CallError
from serving.runtimes.tensorflow_session import TensorFlowRuntime

pytestmark = pytest.mark.integration

IMAGE, PROBABILITIES = "serving_default_image:0", "StatefulPartitionedCall:0"


def pictures(n: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (n, 28, 28, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def lite(bars_version: Path) -> LiteRtRuntime:
    return LiteRtRuntime(bars_version, threads=1, runs=2)


@pytest.fixture(scope="module")
def full(bars_version: Path) -> TensorFlowRuntime:
    return TensorFlowRuntime(bars_version)


@pytest.fixture
def copied(tmp_path: Path, bars_version: Path) -> Path:
    return Path(shutil.copytree(bars_version, tmp_path / "bars" / "1"))


@pytest.mark.parametrize("rows", [1, 2, 31, 32, 33, 100])
def test_answers_as_tensorflow_does(lite: LiteRtRuntime, full: TensorFlowRuntime, rows: int) -> None:
    (expected,) = full.run({IMAGE: pictures(rows)}, [PROBABILITIES])
    (answers,) = lite.run({IMAGE: pictures(rows)}, [PROBABILITIES])
    assert answers.shape == (rows, 2)
    assert answers.dtype == np.float32
    assert np.abs(answers - expected).max() <= 1e-5


def test_loading_writes_nothing_to_stderr(bars_version: Path) -> None:
    load = (
        "import sys; from pathlib import Path; from serving.runtimes.litert import LiteRtRuntime;"
        "LiteRtRuntime(Path(sys.argv[1]), threads=1, runs=1)"
    )
    done = subprocess.run([sys.executable, "-c", load, bars_version], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_an_answer_does_not_depend_on_who_else_asks(lite: LiteRtRuntime) -> None:
    (together,) = lite.run({IMAGE: pictures(40)}, [PROBABILITIES])
    alone = [lite.run({IMAGE: pictures(40)[i : i + 1]}, [PROBABILITIES])[0] for i in range(40)]
    assert np.abs(together - np.concatenate(alone)).max() <= 1e-6


def test_signatures_and_card_are_the_saved_model_s(
    lite: LiteRtRuntime, full: TensorFlowRuntime, bars_version: Path
) -> None:
    assert lite.signatures == full.signatures
    probe = {lite.signatures["model_card"].inputs["probe"].name: np.zeros(3, np.int32)}
    fetches = [lite.signatures["model_card"].outputs["card"].name]
    (expected,), (answers,) = full.run(probe, fetches), lite.run(probe, fetches)
    assert answers.tolist() == expected.tolist()
    assert answers[0].decode() + "\n" == (bars_version / CARD_FILE).read_text()


def test_no_rows_get_no_answers(lite: LiteRtRuntime, full: TensorFlowRuntime) -> None:
    for model in (lite, full):
        (answers,) = model.run({IMAGE: pictures(0)}, [PROBABILITIES])
        assert (answers.shape, answers.dtype) == ((0, 2), np.float32)


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({IMAGE: np.zeros((1, 28, 28, 1), np.float32)}, "image must be uint8, and float32 is provided"),
        ({IMAGE: np.zeros((1, 32, 32, 1), np.uint8)}, "must have the shape .-1, 28, 28, 1.: .1, 32, 32, 1."),
        ({IMAGE: np.zeros((28, 28, 1), np.uint8)}, "must have the shape"),
        ({"other:0": np.zeros((1, 28, 28, 1), np.uint8)}, "no signature takes .'other:0'."),
    ],
)
def test_what_the_signature_does_not_declare_is_refused(lite: LiteRtRuntime, feeds: dict[str, Any], words: str) -> None:
    (before,) = lite.run({IMAGE: pictures(2)}, [PROBABILITIES])
    with pytest.raises(CallError, match=words) as caught:
        lite.run(feeds, [PROBABILITIES])
    assert caught.value.code.name == "INVALID_ARGUMENT"
    (after,) = lite.run({IMAGE: pictures(2)}, [PROBABILITIES])
    assert np.array_equal(before, after)


def test_threads_do_not_disturb_each_other(lite: LiteRtRuntime) -> None:
    batches = [pictures(1 + i % 5, seed=i) for i in range(60)]
    expected = [lite.run({IMAGE: batch}, [PROBABILITIES])[0] for batch in batches]
    answers: dict[int, Any] = {}

    def ask(first: int) -> None:
        for i in range(first, len(batches), 6):
            answers[i] = lite.run({IMAGE: batches[i]}, [PROBABILITIES])[0]

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(answers[i], expected[i]) for i in range(len(batches)))


def test_a_deadline_is_looked_at_between_runs_and_while_all_interpreters_are_busy(bars_version: Path) -> None:
    lite = LiteRtRuntime(bars_version, threads=1, runs=1)
    with pytest.raises(CallError) as late:
        lite.run({IMAGE: pictures(33)}, [PROBABILITIES], time.monotonic() - 1)
    assert late.value.code.name == "DEADLINE_EXCEEDED"
    with lite._interpreter(None), pytest.raises(CallError) as busy:
        lite.run({IMAGE: pictures(1)}, [PROBABILITIES], time.monotonic() + 0.05)
    assert busy.value.code.name == "DEADLINE_EXCEEDED"
    assert lite.run({IMAGE: pictures(1)}, [PROBABILITIES], time.monotonic() + 60)[0].shape == (1, 2)


def test_an_interpreter_that_fails_is_replaced_and_one_that_is_late_is_kept(bars_version: Path) -> None:
    lite = LiteRtRuntime(bars_version, threads=1, runs=1)
    with lite._interpreter(None) as first:
        pass
    with pytest.raises(CallError, match="Deadline"):
        lite.run({IMAGE: pictures(1)}, [PROBABILITIES], time.monotonic() - 1)
    with lite._interpreter(None) as kept:
        assert kept is first
    with pytest.raises(CallError) as caught, lite._interpreter(None) as broken:
        broken.get_signature_runner("serving_default")(image=np.zeros((1, 32, 32, 1), np.uint8))
    assert caught.value.code.name == "INTERNAL"
    with lite._interpreter(None) as replaced:
        assert replaced is not first
    assert lite.run({IMAGE: pictures(1)}, [PROBABILITIES])[0].shape == (1, 2)


def test_a_file_of_other_signatures_is_not_used(copied: Path, bars_version: Path) -> None:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(bars_version), signature_keys=["serving_default"])
    (copied / TFLITE_FILE).write_bytes(converter.convert())
    with pytest.raises(NotFit, match="model_card"):
        LiteRtRuntime(copied, threads=1, runs=1)
