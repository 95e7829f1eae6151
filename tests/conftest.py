"""What every test may ask for."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import settings

from tests.tiers import Tiers

settings.register_profile("untimed", deadline=None)  # a busy machine is no bug
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Tiers(unit_only=config.option.markexpr == "unit"))


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


@pytest.fixture(scope="session")
def face_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with the face encoder, as `sightline export face-encoder` exports it: once for all tests."""
    pytest.importorskip("dlib")
    pytest.importorskip("tensorflow")
    from export.families.face_encoder import command

    models = tmp_path_factory.mktemp("face-encoder")
    result = CliRunner().invoke(command, ["--out", str(models)], catch_exceptions=False)
    assert result.exit_code == 0
    return models


@pytest.fixture(scope="session")
def bars_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published version of the tiny model of bars. Tests that change it copy it first."""
    pytest.importorskip("tensorflow")
    from export.options import Target
    from export.pipeline import export
    from tests.bars import bars_recipe

    return export(bars_recipe(), Target(tmp_path_factory.mktemp("models"), "bars"))
