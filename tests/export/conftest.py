"""The tiny model of bars as recipes and data."""

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("tensorflow")

from export.datasets import DataSet
from export.pipeline import Recipe
from tests.bars import bars_data, bars_recipe, tiny


@pytest.fixture
def make_recipe() -> Callable[..., Recipe]:
    return bars_recipe


@pytest.fixture
def make_bars() -> Callable[[], DataSet]:
    return bars_data


@pytest.fixture
def build_tiny() -> Callable[[tuple[int, int, int], int], Any]:
    return tiny
