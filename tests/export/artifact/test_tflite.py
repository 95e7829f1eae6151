"""model.tflite beside the SavedModel: written where LiteRT answers as Keras did, otherwise left out with a reason."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from export.artifact.tflite import write_tflite
from export.artifact.verify import replay_tflite, verify
from export.options import Target
from export.pipeline import Recipe, export
from serving.contract.card import read_card
from serving.contract.golden import GoldenExamples, proof_of, read_golden, read_proof
from serving.contract.manifest import MANIFEST_FILE
from serving.contract.versions import TFLITE_FILE
from serving.runtimes.runtime import NotFit

pytestmark = pytest.mark.integration


def test_a_version_has_it_and_it_answers_as_keras(bars_version: Path) -> None:
    assert replay_tflite(bars_version, read_proof(bars_version)) <= 5e-6


def test_it_is_left_out_where_it_is_not_wanted(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> None:
    version = export(make_recipe(epochs=1), Target(tmp_path, "bars", tflite=False))
    assert not (version / TFLITE_FILE).exists()
    assert verify(version).ok


def test_it_is_left_out_where_answers_would_move(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card, golden = read_card(copied), read_golden(copied)
    moved = GoldenExamples(golden.pictures, golden.tensors, golden.probabilities + np.float32(1e-4))
    write_tflite(copied, ["serving_default", "model_card"], proof_of(card, moved))
    assert not (copied / TFLITE_FILE).exists()
    assert "no model.tflite: model.tflite differs by 0.0001 from the exported model; 5e-06" in capsys.readouterr().err


def test_a_model_with_an_operation_that_litert_lacks_is_published_without_it(
    tmp_path: Path, make_recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    def with_bessel(trained: Any) -> Any:
        call = trained.servable.call
        return dataclasses.replace(
            trained,
            servable=dataclasses.replace(
                trained.servable, call=lambda image: call(image) * tf.math.bessel_i0e(tf.zeros_like(call(image)))
            ),
        )

    recipe = make_recipe(epochs=1)
    version = export(Recipe("bars", lambda: with_bessel(recipe.make())), Target(tmp_path, "bars"))
    assert not (version / TFLITE_FILE).exists()
    assert verify(version).ok
    assert "no model.tflite: LiteRT lacks BesselI0e" in capsys.readouterr().err


def test_bfloat16_has_none(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> None:
    version = export(make_recipe(epochs=4), Target(tmp_path, "bars", precision="bfloat16"))
    assert not (version / TFLITE_FILE).exists()


def test_one_that_is_damaged_is_found_at_stage_tflite(copied: Path) -> None:
    (copied / TFLITE_FILE).write_bytes(b"not a model")
    (copied / MANIFEST_FILE).unlink()
    with pytest.raises(NotFit, match="cannot be loaded"):
        replay_tflite(copied, read_proof(copied))
    verdict = verify(copied)
    assert (verdict.ok, verdict.stage) == (False, "tflite")
