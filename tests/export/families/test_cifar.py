"""CIFAR-10's binary version."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export.families.cifar import RECORD, TEST_FILE, TRAIN_FILES
from export.networks.small import SMALL_RGB
from serving.contract.card import read_card

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

Export = Callable[..., Path]


@pytest.mark.parametrize("arch", SMALL_RGB)
def test_cifar_reads_the_binary_version(exported: Export, tmp_path: Path, arch: str) -> None:
    random = np.random.default_rng(0)
    for name in (*TRAIN_FILES, TEST_FILE):
        records = random.integers(0, 255, (10, RECORD)).astype(np.uint8)
        records[:, 0] = np.arange(10)
        (tmp_path / name).write_bytes(records.tobytes())
    card = read_card(exported("cifar", "--data", tmp_path, "--arch", arch, "--epochs", 1))
    assert card.label_names[3] == "cat"
