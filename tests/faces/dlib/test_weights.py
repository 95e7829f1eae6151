"""face_recognition's import, without its surprises."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]

WITHOUT_PKG_RESOURCES = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'pkg_resources':
            raise ModuleNotFoundError("No module named 'pkg_resources'")
sys.meta_path.insert(0, Hidden())
"""


def python(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_face_recognition_quits_silently_where_pkg_resources_is_missing() -> None:
    """The reason for the guard; when this test fails one day, the guard can go."""
    pytest.importorskip("dlib")
    done = python(WITHOUT_PKG_RESOURCES + "import face_recognition; print('imported')")
    assert done.returncode == 0
    assert "imported" not in done.stdout


def test_guard_imports_face_recognition_without_pkg_resources() -> None:
    pytest.importorskip("dlib")
    code = """
from PIL import ImageFile
from serving.faces.dlib.weights import import_face_recognition
import_face_recognition().face_locations
print(ImageFile.LOAD_TRUNCATED_IMAGES, 'pkg_resources' in sys.modules)
"""
    done = python(WITHOUT_PKG_RESOURCES + code)
    assert done.stdout.splitlines()[-1] == "False False", done.stderr


@pytest.mark.parametrize("failure", ["quit()", "raise ImportError('no models')"])
def test_import_that_gives_up_is_a_readable_error(tmp_path: Path, failure: str) -> None:
    (tmp_path / "face_recognition.py").write_text(f"print('Please install'); {failure}\n")
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
from serving.contract.errors import FacesNotInstalled
from serving.faces.dlib.weights import import_face_recognition
try:
    import_face_recognition()
except FacesNotInstalled as exc:
    print('said:', exc.detail, exc.hint)
"""
    done = python(code)
    assert done.stdout.startswith("said: face_recognition"), done.stderr
    assert "docs/faces.md" in done.stdout


def test_missing_dlib_is_a_readable_error(tmp_path: Path) -> None:
    (tmp_path / "dlib.py").write_text("raise ImportError('libX11.so.6: cannot open shared object file')\n")
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
from serving.faces.dlib.weights import load_dlib
from sightline.cli import run
import click
run(click.command()(lambda: load_dlib()))
"""
    done = python(code)
    assert done.returncode == 2
    assert "libX11" in done.stderr
    assert "pip install" in done.stderr


def test_plain_import_works_as_installed() -> None:
    """The extra `faces` brings a setuptools that still has pkg_resources."""
    pytest.importorskip("dlib")
    done = python("import face_recognition; print(len(face_recognition.face_locations.__doc__) > 0)")
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
