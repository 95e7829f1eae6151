"""The embedded server reads the files that `sightline export` writes for TensorFlow Serving."""

import shutil
import time
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest

from export.artifact.publishing import draft_version
from export.artifact.serving_config import refresh
from serving.model_server.loading.batching import read_batch_settings
from tests.model_server.saved_models import half_plus, write
from tests.model_server.server_process import running

pytestmark = pytest.mark.integration


def publish(models: Path, name: str, addend: float) -> None:
    with draft_version(models, name) as draft:
        shutil.copytree(write(models.parent / f"{name}-made", half_plus(addend)), draft.path, dirs_exist_ok=True)
        draft.publish()


def test_the_server_takes_the_files_and_follows_the_next_publication(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    publish(models, "two", 2)
    config = refresh(models, str(models))
    flags = ["--model_config_file", config / "models.config", "--model_config_file_poll_wait_seconds", "0.2"]
    batching = ["--enable_batching", "--batching_parameters_file", config / "batching.config"]
    monitoring = ["--monitoring_config_file", config / "monitoring.config"]
    with running(tmp_path, *flags, *batching, *monitoring, rest=True) as server:
        rows = np.full((100, 1), 8, np.float32)  # more than one run takes: cut, not refused
        assert list(server.predict("two", {"x": rows}).outputs["y"].float_val) == [6.0] * 100
        with pytest.raises(grpc.RpcError, match="Servable not found"):
            server.predict("three", {"x": rows})
        publish(models, "three", 3)
        end = time.monotonic() + 30
        while server.states("three") != {1: "AVAILABLE"}:
            assert time.monotonic() < end, server.log.read_text()
            time.sleep(0.05)
        assert server.predict("three", {"x": rows[:1]}).outputs["y"].float_val == [7.0]
        url = f"http://127.0.0.1:{server.rest_port}/monitoring/prometheus/metrics"
        assert b":tensorflow:serving:request_count" in urllib.request.urlopen(url, timeout=10).read()


def test_the_batching_file_holds_what_it_says(tmp_path: Path) -> None:
    settings = read_batch_settings(refresh(tmp_path) / "batching.config")
    assert (settings.max_batch_size, settings.max_execution_size, settings.split) == (1024, 32, True)


def test_the_folder_of_files_is_no_model(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    publish(models, "two", 2)
    assert (models / "serving-config" / "models.config").exists()
    with running(tmp_path, "--models", models) as server:
        server.wait_for("two", 1)
        assert "serving-config" not in server.log.read_text()
        assert server.states("serving-config") == {}
