"""The package and its command in a folder that has a `clients.py` and a `serving/` of its own."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.shades import Service, png

pytestmark = pytest.mark.integration

COMMAND = Path(sys.executable).with_name("sightline")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's project: modules of their own that end whoever imports them, and a picture."""
    for module in ("clients.py", "export.py", "serving/__init__.py", "serving/model_server.py", "serving/faces.py"):
        path = tmp_path / module
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'raise SystemExit("{module} is the user\'s own")\n')
    (tmp_path / "night.png").write_bytes(png(10))
    return tmp_path


def test_a_script_of_the_folder_predicts(folder: Path, service: Service) -> None:
    script = folder / "label.py"
    script.write_text(
        "import sys; from sightline import Client\n"
        "with Client(sys.argv[1]) as client: print(client.predict('night.png', model='shades').label)\n"
    )
    done = subprocess.run(
        [sys.executable, script, service.url], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.stdout == "black\n", done.stderr


@pytest.mark.parametrize("command", [[COMMAND], [sys.executable, "-m", "sightline"]], ids=["script", "module"])
def test_the_command_predicts(folder: Path, service: Service, command: list[str]) -> None:
    arguments = ["predict", "night.png", "--model", "shades", "--url", service.url]
    done = subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "black" in done.stdout


def test_the_processes_of_serve_are_sightlines(folder: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [COMMAND, "serve", "--port", str(port), "--backend", "127.0.0.1:9", "--workers", "1"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=subprocess.STDOUT, text=True) as serve:
        assert serve.stdout is not None
        said = []
        for line in serve.stdout:  # until the gateway answers that there is no model server, or the command ends
            said.append(line)
            if "Not ready yet" in line:
                serve.terminate()
    text = "".join(said)
    assert "the user's own" not in text
    assert "Not ready yet" in text
    assert "127.0.0.1:9" in text
