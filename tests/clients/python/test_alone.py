"""The package in fresh environments: with httpx alone, and with what the distribution itself brings."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.shades import Service, png

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[3]
UV = Path(sys.executable).with_name("uv")
HEAVY = ["flask", "gunicorn", "gevent", "grpc", "pydantic", "tensorflow", "keras", "face_recognition", "ray", "pyarrow"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution, built from a copy, for building leaves folders behind."""
    if not UV.exists():
        pytest.skip("uv is not beside the interpreter")
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(
        ROOT, folder / "project", ignore=shutil.ignore_patterns(".*", "models", "tests", "build", "*.egg-info")
    )
    installed([UV, "build", "-q", "--wheel", "-o", folder, "-p", sys.executable, folder / "project"])
    (found,) = folder.glob("*.whl")
    return found


def installed(command: list[str | Path]) -> None:
    """Run a command of uv. Skips where the package index cannot be reached."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and re.search(r"dns error|connect|timed out", done.stderr):
        pytest.skip(f"nothing can be installed here: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr


def environment(folder: Path, *installs: list[str | Path]) -> Path:
    """A fresh environment of the versions that the locks name; the folder of its programs."""
    pins = re.findall(r"^([\w.-]+==[^\\\n]+)", (ROOT / "locks" / "gateway.txt").read_text(), re.MULTILINE)
    (folder / "pins.txt").write_text("\n".join(pins))
    installed([UV, "venv", "-q", "-p", sys.executable, folder / "env"])
    for install in installs:
        installed([UV, "pip", "install", "-q", "-p", folder / "env", "-c", folder / "pins.txt", *install])
    return folder / "env" / "bin"


def said(command: list[str | Path], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_files_are_sent_with_httpx_alone(wheel: Path, tmp_path: Path, service: Service) -> None:
    programs = environment(tmp_path, ["httpx"], ["--no-deps", wheel])
    code = (
        "import importlib.util as u, sys\n"
        "from sightline import AsyncClient, Client, MissingPackage\n"
        "from sightline.faces import Faces\n"
        "print([name for name in ('numpy', 'PIL', 'click', 'rich', 'grpc') if u.find_spec(name)])\n"
        "with Client(sys.argv[1]) as client:\n"
        "    print([found.label for found in client.predict_many(['0.png', '1.png'], model='shades')])\n"
        "    print(client.model('shades').labels)\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('serving', 'clients', 'export')])\n"
        "try:\n"
        "    import sightline.grpc\n"
        "except MissingPackage as exc:\n"
        "    print(exc)\n"
    )
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(png(number * 250))
    lines = said([programs / "python", "-c", code, service.url], tmp_path).splitlines()
    assert lines[:4] == ["[]", "['black', 'white']", "('black', 'dark', 'light', 'white')", "[]"]
    assert "GrpcClient needs the gateway's packages" in lines[4]
    assert "pip install 'sightline-serving[gateway] @ file:///path/to/clone'" in lines[4]


def test_the_commands_of_a_client_need_nothing_of_the_server(wheel: Path, tmp_path: Path, service: Service) -> None:
    programs = environment(tmp_path, [wheel])
    found = f"import importlib.util as u; print([name for name in {HEAVY} if u.find_spec(name)])"
    assert said([programs / "python", "-c", found], tmp_path) == "[]\n"
    (tmp_path / "in").mkdir()
    for number in range(5):
        (tmp_path / "in" / f"{number}.png").write_bytes(png(number * 50))

    def run(*arguments: str) -> str:
        return said([programs / "sightline", *arguments], tmp_path)

    asked = ("--model", "shades", "--url", service.url)
    assert json.loads(run("predict", "in/0.png", *asked, "--json"))["predictions"][0]["label"] == "black"
    assert json.loads(run("score", "in", "--out", "out.jsonl", *asked, "--json"))["rows"] == 5
    assert "5 of 5" in run("review", "out.jsonl", "--out", "review.html")
    assert "agreement: 100.00%" in run("compare-models", "shades", "shades", "in", "--url", service.url)
    assert "--gallery" in run("faces", "identify", "--help")
    for command, extra in ((["serve"], "gateway,model-server"), (["faces", "list"], "faces"), (["doctor"], "gateway")):
        done = subprocess.run(
            [programs / "sightline", *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert f"pip install 'sightline-serving[{extra}] @ file:///path/to/clone'" in done.stderr
        assert "Traceback" not in done.stderr
