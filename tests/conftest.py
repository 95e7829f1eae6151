"""Fixtures for every test."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.exported import cached
from tests.tiers import Tiers

settings.register_profile("untimed", deadline=None)  # a busy machine is no bug
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Tiers(unit_only=config.option.markexpr == "unit"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Make captured output UTF-8: names that are not would end the whole parallel run."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report  # type: ignore[return-value]


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
    from tests.encoders import export_face_encoder

    models = tmp_path_factory.mktemp("face-encoder") / "models"
    return Path(shutil.copytree(cached("face-encoder", export_face_encoder), models))


@pytest.fixture(scope="session")
def bars_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published version of the tiny model of bars. Tests that change it copy it first."""
    pytest.importorskip("tensorflow")
    from tests.bars import export_bars

    models = tmp_path_factory.mktemp("bars") / "models"
    return Path(shutil.copytree(cached("bars", export_bars), models)) / "bars" / "1"
