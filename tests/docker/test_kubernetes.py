"""The Kubernetes objects: the API's schemas, and that everything they name exists in the project."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate import ValidationError, validate

from serving.gateway.settings import read_settings
from serving.gateway.telemetry.metrics import Metrics
from tests.docker.image import ROOT

KUBERNETES = ROOT / "docker" / "kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
OLDEST, NEWEST = "1.30", "1.34"  # the validator's schemas lie in the package, one for each minor version
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]


def built(folder: Path) -> list[Any]:
    """Return the objects that `kubectl apply -k` would send."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which brings kustomize, is not installed")
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.fixture(scope="module")
def overlays() -> dict[str, list[Any]]:
    return {name: built(KUBERNETES / "overlays" / name) for name in OVERLAYS}


def job() -> Any:
    document = yaml.safe_load((KUBERNETES / "export" / "job.yaml").read_text())
    document["metadata"]["name"] = document["metadata"].pop("generateName") + "x"  # as the API does
    return document


def inference_service() -> Any:
    return yaml.safe_load((KUBERNETES / "kserve" / "inference-service.yaml").read_text())


def pod_specs(objects: list[Any]) -> list[Any]:
    return [found["spec"]["template"]["spec"] for found in objects if "template" in found.get("spec", {})]


def named(objects: list[Any], kind: str, name: str) -> Any:
    return next(found for found in objects if (found["kind"], found["metadata"]["name"]) == (kind, name))


def environment(container: Any, objects: list[Any]) -> dict[str, str]:
    values = {entry["name"]: entry.get("value", "x") for entry in container.get("env", ())}
    for source in container.get("envFrom", ()):
        if "configMapRef" in source:
            values |= named(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    return values


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_follows_the_api(overlays: dict[str, list[Any]], overlay: str, version: str) -> None:
    assert OVERLAYS == ["cpu", "gpu", "monitoring"]
    for found in overlays[overlay]:
        validate(found, version, strict=True)


def test_the_job_follows_the_api_and_a_wrong_object_does_not() -> None:
    validate(job(), NEWEST, strict=True)
    wrong = job()
    wrong["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(ValidationError):
        validate(wrong, NEWEST, strict=True)


def test_the_inference_services_pod_follows_the_api() -> None:
    """No package has KServe's own schema; its predictor is a PodSpec with some fields of KServe's."""
    found = inference_service()
    assert (found["apiVersion"], found["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    predictor = dict(found["spec"]["predictor"])
    assert predictor.pop("minReplicas") < predictor.pop("maxReplicas")
    assert "kserve-container" in [container["name"] for container in predictor["containers"]]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": predictor}
    validate(pod, NEWEST, strict=True)


def test_every_pod_is_locked_down(overlays: dict[str, list[Any]]) -> None:
    """The namespace's Pod Security standard `restricted`, plus a read-only root."""
    objects = [found for overlay in overlays.values() for found in overlay]
    specs = [*pod_specs([*objects, job()]), inference_service()["spec"]["predictor"]]
    assert len(specs) == 10
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["enableServiceLinks"] is False
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]
        for volume in spec.get("volumes", ()):
            assert "emptyDir" not in volume or "sizeLimit" in volume["emptyDir"], volume
            volumes = {volume["name"] for volume in spec.get("volumes", ())} | {"faces"}
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_images_are_those_of_compose(overlays: dict[str, list[Any]]) -> None:
    images = {service["image"] for service in COMPOSE.values()}
    objects = [*overlays["cpu"], *overlays["monitoring"], job()]
    assert {container["image"] for spec in pod_specs(objects) for container in spec["containers"]} == images
    gpu = named(overlays["gpu"], "Deployment", "tf-serving")["spec"]["template"]["spec"]["containers"][0]
    assert gpu["image"] == COMPOSE["tf-serving"]["image"] + "-gpu"
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == "1"


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_the_gateway_finds_the_model_servers(overlays: dict[str, list[Any]], overlay: str) -> None:
    objects = overlays[overlay]
    container = named(objects, "Deployment", "gateway")["spec"]["template"]["spec"]["containers"][0]
    environ = {name: value for name, value in environment(container, objects).items() if name != "PGPASSWORD"}
    settings = read_settings(environ).settings
    assert settings.listed_models
    name, _, port = settings.backend.partition(":")
    service = named(objects, "Service", name)["spec"]
    assert service["clusterIP"] == "None"
    assert int(port) in [entry["port"] for entry in service["ports"]]
    server = named(objects, "Deployment", "tf-serving")["spec"]["template"]
    assert service["selector"].items() <= server["metadata"]["labels"].items()
    flags = [word for word in server["spec"]["containers"][0]["args"] if not word.startswith(("--port", "--rest_api"))]
    assert flags == COMPOSE["tf-serving"]["command"]


def test_the_inference_services_gateway_is_set_up() -> None:
    gateway, server = inference_service()["spec"]["predictor"]["containers"]
    settings = read_settings(environment(gateway, [])).settings
    assert settings.port == gateway["ports"][0]["containerPort"]
    assert settings.backend == "127.0.0.1:8500"
    assert "--port=8500" in server["args"]


def test_the_autoscaler_counts_requests_in_flight(overlays: dict[str, list[Any]]) -> None:
    scaler = named(overlays["cpu"], "HorizontalPodAutoscaler", "gateway")["spec"]
    metric = scaler["metrics"][0]["pods"]["metric"]["name"]
    assert f"# TYPE {metric} gauge" in Metrics().text()[0].decode()
    assert metric in (KUBERNETES / "prometheus-adapter-values.yaml").read_text()
    container = named(overlays["cpu"], "Deployment", "gateway")["spec"]["template"]["spec"]["containers"][0]
    settings = read_settings(
        {"SIGHTLINE_WORKERS": environment(container, overlays["cpu"])["SIGHTLINE_WORKERS"]}
    ).settings
    assert int(scaler["metrics"][0]["pods"]["target"]["averageValue"]) < settings.workers * settings.threads


def test_whoever_is_selected_exists(overlays: dict[str, list[Any]]) -> None:
    objects = [*overlays["cpu"], *overlays["monitoring"], job()]
    apps = {
        found["spec"]["template"]["metadata"]["labels"]["app"]
        for found in objects
        if "template" in found.get("spec", {})
    }

    def selected(value: Any) -> set[str]:
        if isinstance(value, dict):
            here = {value["app"]} if isinstance(value.get("app"), str) else set()
            return here.union(*(selected(entry) for entry in value.values()))
        return set().union(*(selected(entry) for entry in value)) if isinstance(value, list) else set()

    for found in objects:
        if found["kind"] in ("Service", "NetworkPolicy", "PodDisruptionBudget"):
            assert selected(found["spec"]) <= apps, found["metadata"]["name"]
