"""What every test may ask for."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data, named by SIGHTLINE_DATA; without it the test is skipped."""
    given = os.environ.get("SIGHTLINE_DATA")
    if not given:
        pytest.skip("SIGHTLINE_DATA names no folder of real data")
    path = Path(given)
    if not path.is_dir():
        pytest.skip(f"SIGHTLINE_DATA is {given}, which is no folder")
    return path
