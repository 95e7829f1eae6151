"""Whatever exists is documented, and whatever is documented exists."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.contract.errors import OperatorError
from serving.gateway.http.errors import status_of
from serving.gateway.http.schemas import Predicted, Predictions
from serving.gateway.settings import Settings
from serving.gateway.telemetry.metrics import Metrics
from tests.contract.error_tree import tree

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MAP = (ROOT / "docs" / "architecture.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


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


def test_every_metric_is_documented() -> None:
    text = (ROOT / "docs" / "serve.md").read_text()
    names = re.findall(r"^# TYPE (\w+)", Metrics().text()[0].decode(), re.MULTILINE)
    assert len(names) > 10
    assert [name for name in names if not re.search(f"`{name}[` ]", text) and not name.endswith("_created")] == []


def test_every_field_of_a_prediction_is_documented() -> None:
    text = (ROOT / "docs" / "http.md").read_text()
    assert [name for name in Predicted.__annotations__ if f"| `predictions[].{name}` |" not in text] == []
    assert [name for name in Predictions.__annotations__ if f"`{name}`" not in text] == []


def test_no_docstring_begins_with_a_bare_question_word() -> None:
    files = [path for folder in ("serving", "clients", "export", "tests") for path in (ROOT / folder).rglob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}: {text}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if re.match(r"(What|Who|Whether|Where|When|Why|Which|How|As|Of)\b", text := ast.get_docstring(node) or "")
    ]
    assert len(files) > 300
    assert found == []


def test_every_target_of_make_that_the_readme_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE)) <= targets


def test_every_path_of_the_map_exists() -> None:
    paths = set(re.findall(r"`([\w.-]+/[\w./-]*)`", MAP))
    assert len(paths) > 80
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_every_name_of_the_map_is_defined_in_its_file() -> None:
    """`PATH`: `NAME`, `NAME`; `NAME` and `NAME` in `PATH`; `NAME` (`PATH`)."""
    listed = re.findall(r"`([\w/.]+\.py)`: ((?:`[\w.]+`(?:, )?)+)", MAP)
    named = re.findall(r"((?:`[\w.]+`(?: and | or )?)+) (?:in |\()`([\w/.]+\.py)`", MAP)
    pairs = [
        (path, name) for path, names in [*listed, *((p, n) for n, p in named)] for name in re.findall(r"`(.+?)`", names)
    ]
    assert len(pairs) > 60
    assert [f"{path}: {name}" for path, name in pairs if name not in set(_defined(ROOT / path))] == []


def _defined(path: Path) -> Iterator[str]:
    """Names at a module's top level, and `Class.name` for those of its classes."""
    for node in ast.parse(path.read_text()).body:
        for name in _names_of(node):
            yield name
            if isinstance(node, ast.ClassDef):
                yield from (f"{name}.{member}" for child in node.body for member in _names_of(child))


def _names_of(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
