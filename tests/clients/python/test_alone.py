"""The client in a fresh environment, with what `pip install sightline` brings and nothing else."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.shades import Service, png

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
UV = Path(sys.executable).with_name("uv")
HEAVY = ["flask", "gunicorn", "gevent", "pydantic", "tensorflow", "keras", "face_recognition", "ray", "pyarrow"]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment's programs, of the versions that the locks name. Skips where nothing installs."""
    if not UV.exists():
        pytest.skip("uv is not beside the interpreter")
    folder = tmp_path_factory.mktemp("fresh")
    pins = re.findall(r"^([\w.-]+==[^\\\n]+)", (ROOT / "locks" / "gateway.txt").read_text(), re.MULTILINE)
    (folder / "pins.txt").write_text("\n".join(pins))
    project = folder / "project"  # a copy: building leaves folders behind
    shutil.copytree(ROOT, project, ignore=shutil.ignore_patterns(".*", "models", "tests", "build", "*.egg-info"))
    subprocess.run([UV, "venv", "-q", "-p", sys.executable, folder / "env"], check=True)
    install = [UV, "pip", "install", "-q", "-p", folder / "env", "-c", folder / "pins.txt", project]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode and re.search(r"dns error|connect|timed out", done.stderr):
        pytest.skip(f"nothing can be installed here: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return folder / "env" / "bin"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_client_needs_nothing_of_the_server(fresh: Path, service: Service, tmp_path: Path) -> None:
    found = f"import importlib.util as u; print([name for name in {HEAVY} if u.find_spec(name)])"
    assert subprocess.run([fresh / "python", "-c", found], capture_output=True, text=True, check=True).stdout == "[]\n"
    (tmp_path / "in").mkdir()
    for number in range(5):
        (tmp_path / "in" / f"{number}.png").write_bytes(png(number * 50))

    def run(*arguments: str) -> str:
        command = [fresh / "sightline", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    asked = ("--model", "shades", "--url", service.url)
    assert json.loads(run("predict", "in/0.png", *asked, "--json"))["predictions"][0]["label"] == "black"
    assert json.loads(run("score", "in", "--out", "out.jsonl", *asked, "--json"))["rows"] == 5
    assert "5 of 5" in run("review", "out.jsonl", "--out", "review.html")
    assert "agreement: 100.00%" in run("compare-models", "shades", "shades", "in", "--url", service.url)
    code = "import asyncio; from sightline import AsyncClient, Client, GrpcClient; print(GrpcClient('127.0.0.1:1'))"
    python = subprocess.run([fresh / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert python.stdout == "GrpcClient('127.0.0.1:1')\n"
