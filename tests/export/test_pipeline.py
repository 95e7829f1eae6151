"""The whole of export on a tiny model: what is published answers as Keras did."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export.artifact.verify import verify
from export.options import Target
from export.pipeline import Recipe, export
from serving.contract.card import CARD_FILE, read_card
from serving.contract.errors import NoSpace
from serving.contract.golden import ANSWERS_FILE, GoldenExamples, read_golden, write_golden
from serving.contract.versions import GOLDEN_DIR


def test_a_published_version_verifies(bars_version: Path) -> None:
    verdict = verify(bars_version)
    assert (verdict.ok, verdict.stage, verdict.n) == (True, "done", 8)
    assert verdict.max_abs_difference <= 1e-5


def test_card_says_what_the_model_is(bars_version: Path) -> None:
    card = read_card(bars_version)
    assert (card.name, card.family, card.label_names) == ("bars", "bars", ("upright", "lying"))
    assert card.input.shape == (None, 28, 28, 1)
    assert card.metrics["test_accuracy"] >= 0.8
    assert 1 <= card.training.epochs <= 12


def test_golden_examples_are_of_every_class(bars_version: Path) -> None:
    golden = read_golden(bars_version)
    assert golden.probabilities.argmax(axis=1).tolist() == [0, 1] * 4


def test_warmup_requests_are_for_both_signatures(bars_version: Path) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    records = tf.data.TFRecordDataset(str(bars_version / "assets.extra" / "tf_serving_warmup_requests"))
    requests = [prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request for record in records]
    assert {request.model_spec.signature_name for request in requests} == {"serving_default", "model_card"}
    loaded = tf.saved_model.load(str(bars_version))
    for request in requests:
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        answer = loaded.signatures[request.model_spec.signature_name](**inputs)
        assert len(next(iter(answer.values()))) == len(next(iter(inputs.values())))


def test_same_seed_gives_the_same_weights(
    tmp_path: Path, bars_version: Path, make_recipe: Callable[..., Recipe]
) -> None:
    again = export(make_recipe(), Target(tmp_path, "bars"))
    other = export(make_recipe(seed=1), Target(tmp_path, "bars"))
    expected = read_golden(bars_version).probabilities
    assert np.array_equal(read_golden(again).probabilities, expected)
    assert not np.array_equal(read_golden(other).probabilities, expected)


def test_another_tensor_is_found_at_stage_preprocessing(copied: Path) -> None:
    golden = read_golden(copied)
    write_golden(copied, GoldenExamples(golden.pictures, golden.tensors + np.uint8(1), golden.probabilities))
    assert (verify(copied).ok, verify(copied).stage) == (False, "preprocessing")


def test_other_probabilities_are_found_at_stage_model(copied: Path) -> None:
    golden = read_golden(copied)
    write_golden(copied, GoldenExamples(golden.pictures, golden.tensors, golden.probabilities + np.float32(0.01)))
    verdict = verify(copied)
    assert (verdict.ok, verdict.stage) == (False, "model")
    assert verdict.max_abs_difference == pytest.approx(0.01, abs=1e-4)


def test_another_card_in_the_file_is_found_at_stage_card(copied: Path) -> None:
    card = json.loads((copied / CARD_FILE).read_text())
    (copied / CARD_FILE).write_text(json.dumps({**card, "name": "impostor"}))
    assert (verify(copied).ok, verify(copied).stage) == (False, "card")


def test_a_truncated_model_is_found_at_stage_load(copied: Path) -> None:
    (copied / "variables" / "variables.index").unlink()
    assert (verify(copied).ok, verify(copied).stage) == (False, "load")


def test_missing_answers_are_found_at_stage_files(copied: Path) -> None:
    (copied / GOLDEN_DIR / ANSWERS_FILE).unlink()
    assert (verify(copied).ok, verify(copied).stage) == (False, "files")


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no zip", b"not a zip file"])
def test_damaged_answers_are_found_at_stage_files(copied: Path, damage: bytes) -> None:
    (copied / GOLDEN_DIR / ANSWERS_FILE).write_bytes(damage)
    assert (verify(copied).ok, verify(copied).stage) == (False, "files")


def test_verify_command_prints_json_and_says_it_with_its_exit_status(bars_version: Path, copied: Path) -> None:
    (copied / GOLDEN_DIR / ANSWERS_FILE).write_bytes(b"not a zip file")
    for version, status in ((bars_version, 0), (copied, 1)):
        done = subprocess.run(
            [sys.executable, "-m", "export", "verify", str(version), "--json"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": "."},
        )
        assert done.returncode == status, done.stderr
        answer = json.loads(done.stdout)
        assert answer["ok"] is (status == 0)
        assert {"stage", "n", "max_abs_difference", "detail"} < set(answer)


def test_nothing_is_published_when_the_model_does_not_verify(
    tmp_path: Path, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("export.pipeline.write_version", full_disk)
    with pytest.raises(NoSpace):
        export(make_recipe(epochs=1), Target(tmp_path, "bars"))
    assert list((tmp_path / "bars").iterdir()) == []
