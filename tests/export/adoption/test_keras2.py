"""Files of Keras 2 are loaded, and answer as before."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export.adoption.keras2 import stored_loss
from export.adoption.keras_files import load_keras_file
from tests.export.adoption.own_models import nested, save_as_keras2, small

keras = pytest.importorskip("keras")

pytestmark = pytest.mark.filterwarnings("ignore")  # Keras warns of HDF5 files and of old arguments


def rescaled() -> object:
    return small("softmax", 3, keras.layers.Rescaling(1 / 255))


@pytest.mark.parametrize("suffix", ["h5", "keras"])
@pytest.mark.parametrize("build", [rescaled, nested])
def test_a_file_of_keras_2_answers_as_before(tmp_path: Path, build: Callable[[], object], suffix: str) -> None:
    model = build()
    path = save_as_keras2(model, tmp_path / f"old.{suffix}")
    if build is nested or suffix == "keras":  # Keras 3 reads the other one
        with pytest.raises((TypeError, ValueError)):
            keras.models.load_model(path, compile=False)
    image = np.random.default_rng(0).uniform(0, 255, (2, *model.inputs[0].shape[1:])).astype(np.float32)
    answers = load_keras_file(path, None, None).call(image)
    assert np.allclose(answers, model(image), atol=1e-6)


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_the_loss_is_read_from_the_file(tmp_path: Path, suffix: str) -> None:
    model = small(None, 1)
    model.save(tmp_path / f"bare.{suffix}")
    assert stored_loss(tmp_path / f"bare.{suffix}") == ""
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    model.save(tmp_path / f"compiled.{suffix}")
    assert "binarycrossentropy" in stored_loss(tmp_path / f"compiled.{suffix}")
