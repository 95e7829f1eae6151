"""The pretrained classifiers."""

from pathlib import Path

import numpy as np
import pytest

from export.data.datasets import Places
from export.networks.pretrained import BACKBONES, LITE, classifier, default_arch, feature_extractor, normalised

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.integration


OF_KERAS = [name for name in BACKBONES if name != LITE]


@pytest.mark.parametrize("name", OF_KERAS)
def test_preprocessing_in_the_graph_is_what_keras_does(name: str) -> None:
    import keras

    row = BACKBONES[name]
    image = np.random.default_rng(0).uniform(0, 255, (2, 5, 4, 3)).astype(np.float32)
    expected = getattr(keras.applications, row.module).preprocess_input(image.copy())
    assert np.allclose(np.asarray(normalised(image, row.mode)), expected, atol=1e-5)


def test_efficientnet_lite_is_scaled_as_it_was_trained() -> None:
    assert np.asarray(normalised(np.float32([0, 127, 255]), "lite")).tolist() == [-127 / 128, 0, 1]


def test_its_features_and_its_classes_can_be_built_at_another_size() -> None:
    assert classifier(LITE, 64, 5, None).output_shape == (None, 5)
    assert feature_extractor(LITE, 64, "max", None).output_shape == (None, 1280)


def test_the_default_is_what_this_machine_has_weights_of(tmp_path: Path) -> None:
    places = Places(data=None, root=tmp_path, keras=tmp_path / "keras")
    assert default_arch("vgg16", "imagenet", places) == LITE
    assert default_arch("vgg16", "none", places) == "vgg16"
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet" / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5").touch()
    assert default_arch("vgg16", "imagenet", places) == LITE
    (tmp_path / "imagenet" / "vgg16_weights_tf_dim_ordering_tf_kernels.h5").touch()
    assert default_arch("vgg16", "imagenet", places) == "vgg16"


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_builds_at_its_own_size(name: str) -> None:
    assert classifier(name, BACKBONES[name].size, 1000, None).output_shape == (None, 1000)
