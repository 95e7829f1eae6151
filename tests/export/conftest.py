"""The tiny model of bars as recipes and data."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.data.datasets import DataSet
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


@pytest.fixture
def copied(tmp_path: Path, bars_version: Path) -> Path:
    """A copy of the published version, which a test may change."""
    return Path(shutil.copytree(bars_version, tmp_path / "1"))
