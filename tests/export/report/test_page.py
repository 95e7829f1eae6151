"""The report of a version."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from export.options import Target
from export.pipeline import Recipe, export
from export.report.page import write_report_again

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.integration


def test_the_report_shows_the_architecture(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    version = export(make_recipe(epochs=1), Target(tmp_path / "models", "bars", reports=tmp_path / "reports"))
    report = tmp_path / "reports" / "bars" / version.name
    first = (report / "index.html").read_text()
    assert 'src="architecture.png"' in first
    with Image.open(report / "architecture.png") as drawn:
        assert min(drawn.size) > 100
    (report / "architecture.png").unlink()
    assert write_report_again(report).read_text() == first
    assert (report / "architecture.png").exists()
