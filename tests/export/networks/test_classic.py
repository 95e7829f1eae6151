"""Classic architectures."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from export.networks.classic import googlenet, resnet50, vggnet

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("build", [vggnet, googlenet, resnet50])
def test_classic_architectures_map_images_to_probabilities(build: Callable[..., Any]) -> None:
    model = build((32, 32, 3), 3)
    answer = np.asarray(model(np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)))
    assert answer.shape == (2, 3)
    assert np.allclose(answer.sum(axis=1), 1, atol=1e-5)


def test_resnet50_has_the_published_number_of_weights() -> None:
    # 25,636,712 with 1000 classes in Keras, where every convolution has a bias as well: 26,560 of them
    assert resnet50((224, 224, 3), 1000).count_params() == 25_636_712 - 26_560
