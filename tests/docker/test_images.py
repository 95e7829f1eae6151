"""The images, built from the Dockerfiles' own lines; entry points run read-only, unprivileged, with /tmp."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from export.options import Target
from export.pipeline import export
from tests.bars import bars_recipe
from tests.docker.image import ROOT, Stage, build, is_healthy, start
from tests.e2e.conftest import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

if sys.version_info[:2] != (3, 11):
    pytest.skip("the images' Python is 3.11, and so has to be the one that stands in for it", allow_module_level=True)
for tool in ("bwrap", "apt-get", "dpkg-deb"):
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed (Debian: apt install bubblewrap apt dpkg)", allow_module_level=True)

LARGEST = {"gateway": 200e6, "faces": 350e6}  # bytes


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Stage]:
    """Return a function that builds (Dockerfile's name, target), once each."""
    made: dict[tuple[str, str], Stage] = {}

    def make(name: str, target: str) -> Stage:
        if (name, target) not in made:
            work = tmp_path_factory.mktemp(f"{name}-{target}")
            made[name, target] = build(ROOT / "docker" / f"{name}.Dockerfile", target, work)
        return made[name, target]

    return make


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("served") / "models"
    export(bars_recipe(), Target(models, "bars"))
    return models


def wait_until(holds: Callable[[], Any], process: subprocess.Popen[bytes], log: Path, seconds: float = 90) -> Any:
    end = time.monotonic() + seconds
    while not (answer := holds()):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)
    return answer


def wait_until_gone(stage: Stage, env: dict[str, str], seconds: float = 30) -> None:
    """bubblewrap has been killed; what ran inside it ends a moment later."""
    end = time.monotonic() + seconds
    while is_healthy(stage, env):
        assert time.monotonic() < end, "the health check still passes"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def model_server(
    image: Callable[[str, str], Stage], models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Run the model server's image with its own command, on other ports. Yields the address of its gRPC."""
    stage, port = image("model-server", "model-server"), free_port()
    log = tmp_path_factory.mktemp("log") / "log"
    ports = [f"--port={port}", f"--rest_api_port={free_port()}"]
    process = start(stage, [*stage.command, *ports], env={}, log=log, binds={models: "/models"})
    stage.healthcheck = [word.replace("8500", str(port)) for word in stage.healthcheck]
    try:
        wait_until(lambda: is_healthy(stage, {}), process, log)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
    wait_until_gone(stage, {})


@pytest.mark.parametrize("target", ["gateway", "faces"])
def test_the_gateway_is_small_enough_and_anybody_can_read_it(image: Callable[[str, str], Stage], target: str) -> None:
    stage = image("gateway", target)
    assert stage.size() < LARGEST[target]
    files = [path for path in (stage.root / "app").rglob("*") if path.is_file()]
    assert [path for path in files if not path.stat().st_mode & 0o004] == []


@pytest.mark.parametrize("target", ["gateway", "faces"])
def test_without_keys_the_gateway_says_what_it_wants(
    image: Callable[[str, str], Stage], target: str, tmp_path: Path
) -> None:
    process = start(image("gateway", target), ["serve"], env={}, log=tmp_path / "log")
    assert process.wait(30) == 2
    assert "there are no API keys" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("target", ["gateway", "faces"])
def test_a_picture_gets_its_label_from_images_that_cannot_write(
    image: Callable[[str, str], Stage], model_server: str, models: Path, target: str, tmp_path: Path
) -> None:
    stage, port = image("gateway", target), free_port()
    named = (models / "serving-config" / "gateway.env").read_text().splitlines()[-1].partition("=")[2]
    env = {
        "SIGHTLINE_PORT": str(port),
        "SIGHTLINE_BACKEND": model_server,
        "SIGHTLINE_MODEL_NAMES": named,
        "SIGHTLINE_INSECURE": "true",
        "SIGHTLINE_FACES_URL": "sqlite:////tmp/faces.db",
    }
    files = sorted(stage.root.rglob("*"))
    process = start(stage, stage.command, env=env, log=tmp_path / "log")
    try:
        wait_until(lambda: is_healthy(stage, env), process, tmp_path / "log")
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            wait_until(lambda: client.get("/readyz").status_code == 200, process, tmp_path / "log")
            golden = next(models.glob("bars/1/assets.extra/golden/*.png")).read_bytes()
            answer = client.post("/predict/bars", content=golden, headers={"Content-Type": "image/png"}).json()
            assert answer["predictions"][0]["label"] in ("upright", "lying")
            faces = client.post("/faces/identify", content=golden, headers={"Content-Type": "image/png"})
            expected = (200, []) if target == "faces" else (503, None)
            assert (faces.status_code, faces.json().get("faces")) == expected, faces.text
            assert b"sightline_request_total" in client.get("/metrics").content
    finally:
        process.kill()
        process.wait()
    wait_until_gone(stage, env)
    assert sorted(stage.root.rglob("*")) == files


def test_people_are_known_by_the_image_with_faces(
    image: Callable[[str, str], Stage], model_server: str, data_dir: Path, tmp_path: Path
) -> None:
    """dlib's weights that `trim.sh` left in are enough."""
    known = sorted((data_dir / "faces").rglob("*.jpg"))
    if not known:
        pytest.skip("SIGHTLINE_DATA holds no photos of faces")
    stage, port = image("gateway", "faces"), free_port()
    env = {
        "SIGHTLINE_PORT": str(port),
        "SIGHTLINE_BACKEND": model_server,
        "SIGHTLINE_INSECURE": "true",
        "SIGHTLINE_FACES_URL": "sqlite:////tmp/faces.db",
    }
    process = start(stage, stage.command, env=env, log=tmp_path / "log")
    try:
        wait_until(lambda: is_healthy(stage, env), process, tmp_path / "log")
        files = {"image": known[0].read_bytes()}
        answer = httpx.post(f"http://127.0.0.1:{port}/faces/identify", files=files, timeout=90, trust_env=False)
        assert answer.json()["faces"], answer.text
    finally:
        process.kill()
        process.wait()


def test_a_model_is_exported_by_the_image(image: Callable[[str, str], Stage], tmp_path: Path) -> None:
    stage = image("export", "export")
    models, reports = tmp_path / "models", tmp_path / "reports"
    models.mkdir()
    reports.mkdir()
    volumes = {models: "/models", reports: "/reports"}
    process = start(stage, ["digits", "--epochs", "1"], env={}, log=tmp_path / "log", volumes=volumes)
    assert process.wait(900) == 0, (tmp_path / "log").read_text()
    assert (models / "digits" / "1" / "saved_model.pb").is_file()
    assert (models / "serving-config" / "models.config").is_file()
    assert (reports / "digits" / "1" / "index.html").is_file()
