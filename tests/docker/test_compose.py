"""The compose files: their schema, and that everything they name exists in the project."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from export.artifact.serving_config import BATCHING, GATEWAY, MODEL_CONFIG, MONITORING, refresh
from serving.faces.settings import FaceSettings
from serving.gateway.access.keys import authenticate, read_keys
from serving.gateway.settings import read_settings
from serving.gateway.telemetry.metrics import Metrics
from serving.model_server.__main__ import model_server
from serving.model_server.metrics import Metrics as ModelServerMetrics
from tests.docker.image import ROOT, instructions

DOCKER = ROOT / "docker"
FILES = sorted(DOCKER.glob("compose*.yaml"))
VARIABLE = re.compile(r"\$\{(\w+)(?::?-([^}]*))?\}")


def load(name: str) -> Any:
    return yaml.safe_load((DOCKER / name).read_text())


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Let up.sh create its secrets, and return their folder."""
    folder = tmp_path_factory.mktemp("up")
    for _ in range(2):  # the second run keeps what the first one made
        make_secrets(folder)
    return folder / "secrets"


def make_secrets(folder: Path) -> None:
    places = {"SECRETS": str(folder / "secrets"), "MODELS": str(folder / "models"), "REPORTS": str(folder / "reports")}
    subprocess.run([DOCKER / "up.sh"], env={**os.environ, **places, "SECRETS_ONLY": "1"}, check=True)


def env_file(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_the_files_follow_the_compose_specification() -> None:
    assert len(FILES) == 3
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", *map(str, FILES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_file_that_does_not_follow_it_is_noticed(tmp_path: Path) -> None:
    broken = tmp_path / "compose.yaml"
    broken.write_text("services: {gateway: {image: x, port: 8000}}\n")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(broken)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


def test_what_is_built_and_mounted_exists(secrets: Path, tmp_path: Path) -> None:
    made = {f"secrets/{path.name}" for path in secrets.iterdir()}
    made |= {f"../models/serving-config/{path.name}" for path in refresh(tmp_path).iterdir()}
    made |= {"../models", "../reports"}
    for file in FILES:
        compose = yaml.safe_load(file.read_text())
        named = set(compose.get("volumes", ()))
        for service in compose["services"].values():
            build = service.get("build")
            if build:
                words = instructions(ROOT / build["dockerfile"])
                assert (DOCKER / build["context"]).resolve() == ROOT
                assert build.get("target") is None or any(rest.endswith(f" AS {build['target']}") for _, rest in words)
            sources = [volume.rpartition(":/")[0] for volume in service.get("volumes", ())]
            for source in (VARIABLE.sub(r"\2", text) for text in [*sources, *service.get("env_file", ())]):
                assert source in named | made or (DOCKER / source).exists(), source
        for secret in compose.get("secrets", {}).values():
            assert secret["file"] in made


def test_the_gateway_knows_its_settings(secrets: Path, tmp_path: Path) -> None:
    gateway = load("compose.yaml")["services"]["gateway"]
    environ = {name: VARIABLE.sub(r"\2", value) for name, value in gateway["environment"].items()}
    for path in (secrets / "gateway.env", secrets / "postgres.env", refresh(tmp_path) / GATEWAY):
        environ |= env_file(path)
    settings = read_settings(environ).settings
    assert settings.backend == "tf-serving:8500"
    assert {f"SIGHTLINE_FACES_{name.upper()}" for name in FaceSettings.model_fields} >= {
        name for name in environ if name.startswith("SIGHTLINE_FACES_")
    }
    assert {"owner", "prometheus"} == {key.name for key in read_keys(settings.api_key_entries)}


def test_the_keys_that_are_made_are_let_in(secrets: Path) -> None:
    keys = read_keys(env_file(secrets / "gateway.env")["SIGHTLINE_API_KEYS"].split(","))
    assert authenticate(keys, f"Bearer {(secrets / 'api-key').read_text()}").scopes == {"admin"}
    assert authenticate(keys, f"Bearer {(secrets / 'metrics-key').read_text()}").scopes == {"metrics"}
    assert secrets.stat().st_mode & 0o077 == 0
    for name in ("api-key", "gateway.env", "postgres.env"):
        assert (secrets / name).stat().st_mode & 0o077 == 0


def test_prometheus_key_of_an_older_version_gains_the_scope_metrics(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    file = tmp_path / "secrets" / "gateway.env"
    made = file.read_text()
    file.write_text(made.replace(":metrics", ":predict"))
    make_secrets(tmp_path)
    assert file.read_text() == made
    assert file.stat().st_mode & 0o077 == 0


def test_nothing_is_published_beyond_this_machine_unless_asked() -> None:
    for name, service in load("compose.yaml")["services"].items():
        for port in service.get("ports", ()):
            assert VARIABLE.sub(r"\2", port).startswith("127.0.0.1:"), (name, port)


def test_every_service_is_locked_down_and_limited() -> None:
    for name, service in load("compose.yaml")["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert VARIABLE.sub(r"\2", service["mem_limit"]).endswith(("m", "g")), name
        assert 0 < service["pids_limit"] <= 4096, name
        assert all("size=" in mount for mount in service["tmpfs"]), name


def test_the_model_servers_flags_and_files_exist(tmp_path: Path) -> None:
    flags = {option for parameter in model_server.params for option in parameter.opts}
    files = {f"/models/serving-config/{name}" for name in (MODEL_CONFIG, BATCHING, MONITORING)}
    assert {path.name for path in refresh(tmp_path).iterdir()} == {MODEL_CONFIG, BATCHING, MONITORING, GATEWAY}
    compose = load("compose.yaml")["services"]["tf-serving"]["command"]
    image = [json.loads(rest) for word, rest in instructions(DOCKER / "model-server.Dockerfile") if word == "CMD"][-1]
    assert compose == image
    given = dict(word.partition("=")[::2] for word in compose)
    assert given.keys() <= flags
    assert files == {value for value in given.values() if value.startswith("/")}


def test_the_gpu_file_changes_the_image_for_the_same_version() -> None:
    gpu = load("compose.gpu.yaml")["services"]["tf-serving"]
    assert gpu["image"] == load("compose.yaml")["services"]["tf-serving"]["image"] + "-gpu"
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_prometheus_asks_where_the_metrics_are(tmp_path: Path) -> None:
    jobs = {job["job_name"]: job for job in load("monitoring/prometheus.yml")["scrape_configs"]}
    services = load("compose.yaml")["services"]
    for name, port in (("gateway", 8000), ("tf-serving", 8501)):
        assert name in services
        assert jobs[name]["dns_sd_configs"][0] | {"refresh_interval": ""} == {
            "names": [name],
            "type": "A",
            "port": port,
            "refresh_interval": "",
        }
    assert f'path: "{jobs["tf-serving"]["metrics_path"]}"' in (refresh(tmp_path) / MONITORING).read_text()


def test_the_dashboard_shows_metrics_that_exist() -> None:
    text = Metrics().text()[0].decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))
    kinds |= {m.name: m.kind for m in vars(ModelServerMetrics()).values() if hasattr(m, "kind")}
    parts = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
    known = {name + part for name, kind in kinds.items() for part in parts[kind]} | {"up"}
    dashboard = json.loads((DOCKER / "monitoring/grafana/dashboards/sightline.json").read_text())
    datasource = yaml.safe_load((DOCKER / "monitoring/grafana/datasources/prometheus.yaml").read_text())["datasources"][
        0
    ]
    shown: set[str] = set()
    for panel in dashboard["panels"]:
        assert panel["datasource"]["uid"] == datasource["uid"]
        for target in panel["targets"]:
            query = re.sub(r"\{[^}]*\}|\[[^]]*\]|by \([^)]*\)", "", target["expr"])
            shown |= set(re.findall(r"[a-zA-Z_:][\w:]*", query)) - {"sum", "avg", "rate", "histogram_quantile"}
    assert shown <= known
    assert {name for name, kind in kinds.items() if not name.startswith(":") and kind == "counter"} <= shown
