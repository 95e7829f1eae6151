"""Run `sightline export` in this process; small data for its families."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from export.__main__ import export
from export.artifact.verify import verify
from tests.export.idx_files import noise, write_idx_files

pytest.importorskip("tensorflow")

Export = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `sightline export` in this process; errors of Sightline are raised."""
    monkeypatch.delenv("SIGHTLINE_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))

    def call(*arguments: object) -> Result:
        places = ["--out", str(tmp_path / "models"), "--reports", str(tmp_path / "reports")]
        result = CliRunner().invoke(export, [*map(str, arguments), *places], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result

    return call


@pytest.fixture
def exported(run: Callable[..., Result]) -> Export:
    """The same; returns the directory of the version, which is verified."""

    def call(*arguments: object) -> Path:
        version = Path(run(*arguments).stdout.strip().splitlines()[-1])
        assert verify(version).ok
        return version

    return call


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    """Forty training and twenty test images of ten classes in the four files of MNIST."""
    write_idx_files(tmp_path / "idx", noise(40), noise(20))
    return tmp_path / "idx"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder per class: 12 reddish and 12 bluish photos of 40 x 48."""
    random = np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for index in range(12):
            picture = random.integers(0, 90, (40, 48, 3)).astype(np.uint8)
            picture[..., channel] += 150
            Image.fromarray(picture).save(folder / f"{index:02d}.png")
    return tmp_path / "photos"
