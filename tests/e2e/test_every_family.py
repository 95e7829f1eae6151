"""Every family from end to end: exported at a small size, served, and compared with Keras by the doctor."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from serving.contract.versions import TFLITE_FILE
from tests.e2e.conftest import ROOT, Service, start_service, stop_service
from tests.export.idx_files import noise, write_idx_files
from tests.exported import cached

pytest.importorskip("tensorflow", reason="the extra `tensorflow` is not installed")
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.timeout(900),  # eleven trainings
]

FIRST_HALF = ("resnet50", "vggnet", "transfer")  # of the work; a second process exports the others meanwhile
SMALL = ("--image-size", "32", "--epochs", "1")
IMAGENET = ("imagenet", "--arch", "mobilenetv2", "--weights", "none", "--image-size", "32", "--classes", "7")
DIGITS = ("--epochs", "1", "--arch", "dense")

DOCTOR = ("-m", "clients", "doctor", "--all", "--no-reload")  # each export has verified its version

# Exports several in one process: TensorFlow takes longer to start than most of these take to train.
EXPORT_ALL = """
import json, sys
from export.__main__ import export
for arguments in json.load(sys.stdin):
    export(arguments, standalone_mode=False)
"""


@dataclass(frozen=True)
class Family:
    """A model, and the arguments of `sightline export` that make it."""

    name: str
    arguments: tuple[str, ...]


def families(data: Path) -> list[Family]:
    photos = ("--data", str(data / "photos"))
    labels = ("--labels", str(data / "names.txt"))
    return [
        Family("digits", ("digits", "--data", str(data / "idx"), *DIGITS)),
        Family("fashion", ("fashion", "--data", str(data / "idx"), *DIGITS)),
        Family("cifar", ("cifar", "--data", str(data / "cifar"), "--epochs", "1")),
        Family("resnet50", ("from-scratch", "--arch", "resnet50", *photos, *SMALL)),
        *(Family(name, (name, *photos, *SMALL)) for name in ("vggnet", "googlenet")),
        Family("imagenet", IMAGENET),
        Family("transfer", ("transfer", *photos, "--weights", "none", *SMALL)),
        Family("keras", ("keras", str(data / "own.keras"), "--preprocess", "unit", *labels)),
        Family("as_is", ("keras", str(data / "own"), "--as-is", "--preprocess", "tf")),
        Family("ensemble", ("ensemble", "googlenet", "keras")),
    ]


def make_data(folder: Path) -> None:
    """Write images of noise in every layout that the families read, and a model to adopt."""
    random = np.random.default_rng(0)
    write_idx_files(folder / "idx", noise(40), noise(20))
    (folder / "cifar").mkdir()
    for name in (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"):
        records = random.integers(0, 255, (10, 1 + 3 * 32 * 32)).astype(np.uint8)
        records[:, 0] = np.arange(10)
        (folder / "cifar" / name).write_bytes(records.tobytes())
    for name, channel in (("red", 0), ("blue", 2)):
        (folder / "photos" / name).mkdir(parents=True)
        for index in range(12):
            picture = random.integers(0, 90, (40, 48, 3)).astype(np.uint8)
            picture[..., channel] += 150
            Image.fromarray(picture).save(folder / "photos" / name / f"{index:02d}.png")
    (folder / "names.txt").write_text("blue\nred\n")
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((24, 24, 3)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.save(folder / "own.keras")
    model.export(folder / "own", verbose=False)


def export_all(keras_home: Path, wanted: list[list[str]]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", EXPORT_ALL],
        input=json.dumps(wanted),
        cwd=ROOT,
        env={**os.environ, "KERAS_HOME": str(keras_home)},
        capture_output=True,
        text=True,
        check=False,
    )


def export_families(folder: Path) -> None:
    """Export every one of them into folder/models."""
    data = folder / "data"
    data.mkdir()
    make_data(data)
    places = ["--out", str(folder / "models"), "--reports", str(folder / "reports")]
    wanted = {family.name: [*family.arguments, "--name", family.name, *places] for family in families(data)}
    halves = [[wanted.pop(name) for name in FIRST_HALF], list(wanted.values())]
    with ThreadPoolExecutor() as pool:
        for done in pool.map(partial(export_all, folder / "keras"), halves):
            assert done.returncode == 0, done.stderr[-3000:]
    for made_from in (data, folder / "reports"):
        shutil.rmtree(made_from)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """All families, exported and served."""
    models = tmp_path_factory.mktemp("families") / "models"
    shutil.copytree(cached("families", export_families, ROOT / "tests/export/idx_files.py") / "models", models)
    service = start_service(models)
    yield service
    stop_service(service)


def test_every_family_is_among_them(tmp_path: Path) -> None:
    from export.families import family_names

    exported = {family.arguments[0] for family in families(tmp_path)}
    assert exported >= set(family_names()) - {"face-encoder"}  # its answers are encodings, not classes: tests/faces


def test_every_family_serves_and_passes_the_doctor(served: Service, http: httpx.Client, tmp_path: Path) -> None:
    names = sorted(family.name for family in families(tmp_path))
    without = {name for name in names if not (served.models / name / "1" / TFLITE_FILE).exists()}
    assert without == {"as_is", "ensemble"}  # a copied SavedModel; a resize that LiteRT lacks
    assert sorted(model["name"] for model in http.get(f"{served.url}/models").json()["models"]) == names
    done = subprocess.run(
        [sys.executable, *DOCTOR, "--url", served.url, "--grpc", served.grpc, "--models", str(served.models)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in names:
        assert name in done.stdout, done.stdout
