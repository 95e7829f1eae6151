"""dlib's file of weights."""

from pathlib import Path

import pytest

from export.networks.dlib_weights import DlibNetwork, read_network
from serving.contract.errors import InvalidData
from serving.faces.dlib.weights import weights_file

pytest.importorskip("dlib")


@pytest.fixture(scope="session")
def network() -> DlibNetwork:
    return read_network(weights_file("encoder"))


def test_whole_file_is_read(network: DlibNetwork) -> None:
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
