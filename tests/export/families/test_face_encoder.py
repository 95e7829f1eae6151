"""dlib's face encoder on TensorFlow, compared with dlib."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from export.artifact.verify import open_saved_model, replay_tflite
from export.families.face_encoder import build, export, proof_by_dlib, require_parity
from export.networks.dlib_weights import DlibNetwork, read_network
from serving.contract.errors import VerificationFailed
from serving.contract.golden import read_proof
from serving.contract.image_limits import ImageLimits
from serving.faces.dlib.detector import DlibDetector
from serving.faces.dlib.encoder import DlibEncoder
from serving.faces.dlib.weights import weights_file
from serving.faces.face import Chips, Encodings
from serving.faces.served_encoder import INPUT, OUTPUT, PARITY, SIGNATURE, probe_chips
from serving.runtimes.runtime import run_signature

pytest.importorskip("dlib")


@pytest.fixture(scope="session")
def network() -> DlibNetwork:
    return read_network(weights_file("encoder"))


@pytest.fixture
def version(face_encoder: Path) -> Path:
    return face_encoder / "face-encoder" / "1"


@pytest.fixture
def encode(version: Path) -> Iterator[Callable[[Chips], Encodings]]:
    """Encode chips with the exported version."""
    runtime = open_saved_model(version)
    yield lambda chips: run_signature(runtime, SIGNATURE, {INPUT: chips}, OUTPUT)
    runtime.close()


def test_parameters_are_those_of_the_network(network: DlibNetwork) -> None:
    kernels = sum(layer.parameters[0].size for layer in network.layers if layer.kind in ("con", "fc"))
    biases = sum(layer.parameters[1].size for layer in network.layers if layer.kind == "con")
    assert build(network).count_params() == kernels + biases == 5_607_488


def test_every_sample_face_has_dlibs_numbers(encode: Callable[[Chips], Encodings]) -> None:
    root = os.environ.get("SIGHTLINE_DATA")
    photos = sorted((Path(root) / "faces").glob("*/*")) if root else []
    if not photos:
        pytest.skip("no sample photos: set SIGHTLINE_DATA to a folder with faces/")
    detector = DlibDetector(ImageLimits(), 800)
    chips = np.concatenate([detector.find(photo.read_bytes()).chips for photo in photos])
    assert len(chips) >= 16
    ours, dlibs = encode(chips), DlibEncoder().encode(chips)
    assert np.abs(ours - dlibs).max() < PARITY
    distances = [np.linalg.norm(each[:, None] - each[None], axis=2) for each in (ours, dlibs)]
    assert np.array_equal(distances[0] <= 0.6, distances[1] <= 0.6)


def test_answer_does_not_depend_on_the_batch(encode: Callable[[Chips], Encodings]) -> None:
    chips = probe_chips()
    together = encode(chips)
    alone = np.concatenate([encode(chip[None]) for chip in chips[:2]])
    assert np.abs(together[:2] - alone).max() < 1e-6


def test_version_that_differs_is_not_published(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert require_parity(version, proof_by_dlib()) < PARITY
    assert (version / "assets.extra" / "tf_serving_warmup_requests").stat().st_size > 0
    assert {path.name for path in version.parent.iterdir()} == {"1"}
    monkeypatch.setattr("export.families.face_encoder.SCALE", 1 / 255)
    with pytest.raises(VerificationFailed, match="differs from dlib"):
        export(version.parent.parent, "face-encoder")
    assert {path.name for path in version.parent.iterdir()} == {"1"}


def test_litert_says_what_dlib_says(version: Path) -> None:
    proof = read_proof(version)
    assert np.array_equal(proof.given, probe_chips())
    assert np.abs(proof.expected - DlibEncoder().encode(probe_chips())).max() == 0
    assert replay_tflite(version, proof) <= PARITY / 2
