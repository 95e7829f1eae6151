"""The classifiers of keras.applications."""

import numpy as np
import pytest

from export.networks.pretrained import BACKBONES, classifier, normalised

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("name", BACKBONES)
def test_preprocessing_in_the_graph_is_what_keras_does(name: str) -> None:
    import keras

    row = BACKBONES[name]
    image = np.random.default_rng(0).uniform(0, 255, (2, 5, 4, 3)).astype(np.float32)
    expected = getattr(keras.applications, row.module).preprocess_input(image.copy())
    assert np.allclose(np.asarray(normalised(image, row.mode)), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_builds_at_its_own_size(name: str) -> None:
    assert classifier(name, BACKBONES[name].size, 1000, None).output_shape == (None, 1000)
