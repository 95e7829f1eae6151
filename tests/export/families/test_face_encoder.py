"""dlib's face encoder on TensorFlow, against dlib."""

import os
from pathlib import Path

import numpy as np
import pytest

from export.networks.dlib_weights import Network, read_network
from serving.contract.errors import InvalidData, VerificationFailed

pytest.importorskip("dlib")

from export.artifact.tflite import lite_answers
from export.families.face_encoder import build, encode_with, export, proof_by_dlib, verify
from serving.contract.golden import read_proof
from serving.contract.image_limits import ImageLimits
from serving.faces.dlib.detector import DlibDetector
from serving.faces.dlib.encoder import DlibEncoder
from serving.faces.dlib.weights import weights_file
from serving.faces.served_encoder import PARITY, probe_chips


@pytest.fixture(scope="session")
def network() -> Network:
    return read_network(weights_file("encoder"))


@pytest.fixture
def version(face_encoder: Path) -> Path:
    return face_encoder / "face-encoder" / "1"


def test_whole_file_is_read(network: Network) -> None:
    assert network.mean == pytest.approx((122.782, 117.001, 104.298))
    assert network.side == 150
    kinds = [layer.kind for layer in network.layers]
    assert {kind: kinds.count(kind) for kind in sorted(set(kinds))} == {
        "add_prev": 14,
        "affine": 29,
        "avg_pool": 5,
        "con": 29,
        "fc": 1,
        "max_pool": 1,
        "relu": 29,
    }


@pytest.mark.parametrize("damage", ["cut off", "another file", "one more byte"])
def test_damaged_file_is_refused_with_its_place(tmp_path: Path, damage: str) -> None:
    data = weights_file("encoder").read_bytes()
    bad = {"cut off": data[: len(data) // 2], "another file": b"GIF89a" * 99, "one more byte": data + b"\1"}[damage]
    (tmp_path / "x.dat").write_bytes(bad)
    with pytest.raises(InvalidData, match=r"x\.dat .* at byte"):
        read_network(tmp_path / "x.dat")


def test_parameters_are_those_of_the_network(network: Network) -> None:
    kernels = sum(layer.parameters[0].size for layer in network.layers if layer.kind in ("con", "fc"))
    biases = sum(layer.parameters[1].size for layer in network.layers if layer.kind == "con")
    assert build(network).count_params() == kernels + biases == 5_607_488


def test_every_sample_face_has_dlibs_numbers(version: Path) -> None:
    root = os.environ.get("SIGHTLINE_DATA")
    photos = sorted((Path(root) / "faces").glob("*/*")) if root else []
    if not photos:
        pytest.skip("no sample photos: set SIGHTLINE_DATA to a folder with faces/")
    detector = DlibDetector(ImageLimits(), 800)
    chips = np.concatenate([detector.find(photo.read_bytes()).chips for photo in photos])
    assert len(chips) >= 16
    ours, dlibs = encode_with(version, chips), DlibEncoder().encode(chips)
    assert np.abs(ours - dlibs).max() < PARITY
    distances = [np.linalg.norm(each[:, None] - each[None], axis=2) for each in (ours, dlibs)]
    assert np.array_equal(distances[0] <= 0.6, distances[1] <= 0.6)


def test_answer_does_not_depend_on_the_batch(version: Path) -> None:
    chips = probe_chips()
    together = encode_with(version, chips)
    alone = np.concatenate([encode_with(version, chip[None]) for chip in chips[:2]])
    assert np.abs(together[:2] - alone).max() < 1e-6


def test_version_that_differs_is_not_published(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify(version, proof_by_dlib()) < PARITY
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
    assert proof.difference(lite_answers(version, proof)) <= PARITY / 2
