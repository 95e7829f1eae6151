"""Digits and fashion with every architecture."""

from collections.abc import Callable
from pathlib import Path

import pytest

from export.networks.small import SMALL_GRAY
from serving.contract.card import read_card

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

Export = Callable[..., Path]


@pytest.mark.parametrize(("family", "arch"), [*(("digits", arch) for arch in SMALL_GRAY), ("fashion", "cnn")])
def test_digits_and_fashion_export_with_every_architecture(
    exported: Export, idx_folder: Path, family: str, arch: str
) -> None:
    card = read_card(exported(family, "--data", idx_folder, "--arch", arch, "--epochs", 1))
    assert (card.family, card.input.shape, len(card.labels)) == (family, (None, 28, 28, 1), 10)
    assert {"test_accuracy", "test_matthews", "test_top5_accuracy", "test_roc_auc"} < set(card.metrics)
