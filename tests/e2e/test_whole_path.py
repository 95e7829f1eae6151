"""One picture in, one label out, through gunicorn, gRPC and TensorFlow."""

import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from sightline import Prediction
from sightline.grpc import GrpcClient

from serving.contract.card import CARD_FILE, read_card
from serving.contract.golden import read_golden
from serving.contract.image import decode_image
from serving.contract.image_limits import ImageLimits
from serving.contract.versions import version_dirs
from tests.e2e.conftest import ROOT, Service
from tests.e2e.exported_models import Exported


def png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def predict(
    http: httpx.Client, service: Service, model: str, pictures: list[bytes], **params: Any
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for start in range(0, len(pictures), 50):
        files = [("image", (f"{index}.png", data)) for index, data in enumerate(pictures[start : start + 50])]
        response = http.post(f"{service.url}/predict/{model}", files=files, params=params)
        assert response.status_code == 200, response.text
        rows += response.json()["predictions"]
    return rows


@pytest.fixture
def held_out(data_dir: Path) -> Callable[[str], tuple[Any, Any]]:
    """(pictures uint8 (n, 28, 28), labels) of a data set's test split, which no training sees."""
    from export.data.datasets import load_idx

    def load(name: str) -> tuple[Any, Any]:
        _, test = load_idx(data_dir / name)
        return np.asarray(test.images), np.asarray(test.labels)

    return load


def test_the_answer_over_http_equals_keras_in_process(http: httpx.Client, service: Service, exported: Exported) -> None:
    for name, probabilities in exported.probabilities.items():
        golden = read_golden(version_dirs(exported.models / name)[-1])
        card = http.get(f"{service.url}/models/{name}").json()["card"]
        noise = np.random.default_rng(0).integers(0, 256, (92, 40, 30, 3), dtype=np.uint8)
        pictures = [*golden.pictures, *map(png, noise)]
        rows = predict(http, service, name, pictures, top=len(card["labels"]))
        served = np.array([[label["score"] for label in sorted(row["top"], key=lambda b: b["index"])] for row in rows])
        preprocessing = read_card(version_dirs(exported.models / name)[-1]).preprocessing
        tensors = np.stack([preprocessing.apply(decode_image(data, ImageLimits())) for data in pictures])
        expected = probabilities(tensors)
        assert len(pictures) == 100
        np.testing.assert_allclose(served, expected, atol=1e-5)


@pytest.mark.parametrize(("name", "least"), [("digits", 0.98), ("fashion", 0.80)])
def test_labels_of_held_out_pictures_are_right(
    http: httpx.Client, service: Service, held_out: Callable[[str], tuple[Any, Any]], name: str, least: float
) -> None:
    images, labels = held_out(name)
    card = http.get(f"{service.url}/models/{name}").json()["card"]
    rows = predict(http, service, name, [png(image) for image in images[:500]])
    names = [label["name"] for label in card["labels"]]
    right = np.mean([row["label"] == names[label] for row, label in zip(rows, labels[:500], strict=True)])
    assert right >= least


def test_digits_drawn_dark_on_light_larger_and_off_centre_are_read(
    http: httpx.Client, service: Service, held_out: Callable[[str], tuple[Any, Any]]
) -> None:
    images, labels = held_out("digits")
    rng = np.random.default_rng(1)
    pictures = []
    for image in images[:300]:
        side = int(rng.integers(60, 200))
        sheet = Image.new("L", (320, 280), int(rng.integers(200, 256)))
        digit = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        where = int(rng.integers(0, 320 - side)), int(rng.integers(0, 280 - side))
        sheet.paste(int(rng.integers(0, 90)), (*where, where[0] + side, where[1] + side), digit)
        buffer = io.BytesIO()
        sheet.filter(ImageFilter.GaussianBlur(0.7)).save(buffer, "JPEG", quality=80)
        pictures.append(buffer.getvalue())
    rows = predict(http, service, "digits", pictures)
    right = np.mean([row["label"] == str(label) for row, label in zip(rows, labels[:300], strict=True)])
    assert right >= 0.93


def test_a_stroke_drawn_by_hand_is_a_one(http: httpx.Client, service: Service) -> None:
    sheet = Image.new("RGB", (400, 300), "white")
    ImageDraw.Draw(sheet).line([(190, 60), (180, 240)], fill="navy", width=14)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    assert predict(http, service, "digits", [buffer.getvalue()])[0]["label"] == "1"


def test_the_curl_line_that_is_printed_works_as_it_stands(service: Service) -> None:
    lines = service.lines
    curl = next(line for line in lines if line.strip().startswith("curl "))
    done = subprocess.run([*shlex.split(curl), "-s"], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout)["predictions"][0]["label"] == "4"  # docs/samples/four.jpg


def test_the_command_line_prints_the_label(service: Service, exported: Exported) -> None:
    picture = sorted(version_dirs(exported.models / "digits")[-1].glob("assets.extra/golden/*.png"))[1]
    command = [sys.executable, "-m", "sightline", "predict", str(picture), "--model", "digits", "--url", service.url]
    table = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert re.search(r"\b1\b", table)
    answer = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert '"label": "1"' in answer or '"label":"1"' in answer


def test_the_doctor_finds_every_stage_in_agreement(service: Service, exported: Exported) -> None:
    command = [sys.executable, "-m", "sightline", "doctor", "--model", "digits", "--models", str(exported.models)]
    where = ["--url", service.url, "--grpc", service.grpc]
    done = subprocess.run([*command, *where], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    for stage in ("recorded", "preprocess", "SavedModel", "gRPC", "HTTP"):
        assert re.search(rf"{stage}\s+ok", done.stdout), done.stdout


def test_a_client_of_the_official_package_is_answered(service: Service, exported: Exported) -> None:
    import grpc
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    tf = pytest.importorskip("tensorflow")
    golden = read_golden(version_dirs(exported.models / "digits")[-1])
    with grpc.insecure_channel(service.grpc) as channel:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "digits"
        request.inputs["image"].CopyFrom(tf.make_tensor_proto(golden.tensors))
        response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=30)
        values = np.array(response.outputs["probabilities"].float_val).reshape(len(golden), -1)
        np.testing.assert_allclose(values, golden.probabilities, atol=1e-5)
        assert response.model_spec.version.value == 1
        assert response.model_spec.signature_name == "serving_default"
        metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        metadata.model_spec.name = "digits"
        answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).GetModelMetadata(metadata, timeout=30)
        assert "signature_def" in answer.metadata
        status = get_model_status_pb2.GetModelStatusRequest()
        status.model_spec.name = "digits"
        rows = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status, timeout=30).model_version_status
        assert [(row.version, row.state) for row in rows] == [(1, 30)]


def test_the_card_that_is_served_is_the_one_on_disk(http: httpx.Client, service: Service, exported: Exported) -> None:
    body = http.get(f"{service.url}/models/digits").json()
    assert body["card"] == json.loads((version_dirs(exported.models / "digits")[-1] / CARD_FILE).read_text())
    assert body["versions"] == [{"version": 1, "state": "AVAILABLE", "proven": True}]


def test_every_way_in_says_the_same_number(http: httpx.Client, service: Service, exported: Exported) -> None:
    temperatures = []
    for name in exported.probabilities:
        version = version_dirs(exported.models / name)[-1]
        golden, card = read_golden(version), read_card(version)
        temperatures.append(card.calibration.temperature)
        rows = predict(http, service, name, list(golden.pictures), probabilities="all")
        expected = np.array([row["probabilities"] for row in rows], np.float32)
        instances = http.post(
            f"{service.url}/v1/models/{name}:predict", json={"instances": golden.tensors.tolist()}
        ).json()["predictions"]
        np.testing.assert_allclose(np.array(instances, np.float32), expected, rtol=0, atol=1e-6)
        tensor = {"name": "image", "datatype": "UINT8", "shape": list(golden.tensors.shape)}
        answer = http.post(
            f"{service.url}/v2/models/{name}/infer",
            json={"inputs": [{**tensor, "data": golden.tensors.reshape(-1).tolist()}]},
        ).json()["outputs"][0]
        numbers = np.array(answer["data"], np.float32).reshape(answer["shape"])
        np.testing.assert_allclose(numbers, expected, rtol=0, atol=1e-6)
        with GrpcClient(service.grpc) as client:
            outcomes = client.predict_many(list(golden.pictures), model=name, probabilities="all")
        over_grpc = np.array([outcome.probabilities for outcome in outcomes if isinstance(outcome, Prediction)])
        np.testing.assert_allclose(over_grpc, expected, rtol=0, atol=1e-6)
    assert any(temperature != 1 for temperature in temperatures)  # calibrated: the temperature is in the graph


def test_health_and_readiness_are_told(http: httpx.Client, service: Service) -> None:
    assert http.get(f"{service.url}/healthz").json() == {"status": "ok"}
    assert "digits" in http.get(f"{service.url}/readyz").json()["models"]


def test_a_picture_over_the_limit_is_refused_with_advice(http: httpx.Client, service: Service) -> None:
    response = http.post(
        f"{service.url}/predict/digits", content=bytes(20_000_001), headers={"content-type": "image/png"}
    )
    assert (response.status_code, response.json()["code"]) == (413, "image_too_large")


def test_a_request_far_over_the_limit_is_answered_not_cut_off(service: Service, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(150_000_000)
    command = ["curl", "-s", "-F", f"image=@{large}", f"{service.url}/predict/digits"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["code"] == "request_too_large", done
