"""The README's request and its answer, as they stand there."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from export.networks.efficientnet_lite import PACKAGE, weights_file
from tests.e2e.conftest import ROOT, Service, start_service, stop_service
from tests.exported import cached

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def export_imagenet(folder: Path) -> None:
    places = ["--out", str(folder / "models"), "--reports", str(folder / "reports")]
    subprocess.run([sys.executable, "-m", "export", "imagenet", "--arch", "efficientnetlite0", *places], check=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service over the first model of `make serve`."""
    if weights_file() is None:
        pytest.skip(f"the package {PACKAGE} is not installed")
    folder = tmp_path_factory.mktemp("photos")
    shutil.copytree(cached("imagenet", export_imagenet) / "models", folder / "models")
    service = start_service(folder / "models")
    yield service
    stop_service(service)


def test_the_readmes_request_gets_the_readmes_answer(photos: Service) -> None:
    curl = next(block for block in blocks("sh") if block.startswith("curl "))
    command = shlex.split(curl.replace("http://127.0.0.1:8000", photos.url))
    done = subprocess.run([*command, "-s"], capture_output=True, text=True, check=True, cwd=ROOT)
    answer, promised = json.loads(done.stdout), json.loads(blocks("json")[0])
    assert done.stdout.startswith(blocks("json")[0].partition('"score"')[0])  # indented as it stands there
    assert list(answer) == list(promised)
    row, shown = answer["predictions"][0], promised["predictions"][0]
    assert list(row) == list(shown)
    assert [row[name] for name in ("name", "label")] == [shown[name] for name in ("name", "label")]
    assert row["score"] == pytest.approx(shown["score"], abs=1e-3)
    for best, promised_best in zip(row["top"], shown["top"], strict=False):
        assert best == {**promised_best, "score": pytest.approx(promised_best["score"], abs=1e-3)}


def test_the_readmes_doctor_agrees(photos: Service) -> None:
    program, *words = shlex.split(next(block for block in blocks("sh") if "doctor" in block))
    where = ["--url", photos.url, "--grpc", photos.grpc, "--models", str(photos.models)]
    assert program == ".venv/bin/sightline"
    subprocess.run([sys.executable, "-m", "sightline", *words, *where], check=True, cwd=ROOT)


def test_the_readmes_digit_is_read(service: Service) -> None:
    curl = next(block for block in blocks("sh") if "four.jpg" in block)
    command = shlex.split(curl.replace("http://127.0.0.1:8000", service.url))
    done = subprocess.run([*command, "-s"], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout)["predictions"][0]["label"] == "4"
