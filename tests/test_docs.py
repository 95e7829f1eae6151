"""Whatever exists is documented, and whatever is documented exists."""

import re
from pathlib import Path

import pytest

from serving.contract.errors import OperatorError
from serving.gateway.http.errors import status_of
from serving.gateway.settings import Settings
from tests.contract.test_errors import tree

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_every_error_that_http_can_answer_is_documented() -> None:
    text = (ROOT / "docs" / "http.md").read_text()
    for kind in tree():
        if not issubclass(kind, OperatorError):
            assert f"| `{kind.code}` | {status_of(kind('x'))} |" in text


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs" / "serve.md").read_text()
    for name, field in Settings.model_fields.items():
        assert f"| `SIGHTLINE_{name.upper()}` |" in text
        assert str(field.description) in text


def test_every_target_of_make_that_the_readme_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE)) <= targets
