"""Data sets: where they are looked for, and what is said of those that are damaged."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from export.data.datasets import (
    IDX_FILES,
    Arrays,
    Places,
    check_host,
    download_with_keras,
    find_folder,
    load_idx,
    read_idx,
    stratified,
)
from serving.contract.errors import DataNotFound, InvalidData


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes()))


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "root" / "digits"
    folder.mkdir(parents=True)
    for name, n in zip(IDX_FILES, (4, 4, 2, 2), strict=True):
        shape = (n, 3, 2) if "images" in name else (n,)
        write_idx(folder / name, np.arange(np.prod(shape), dtype=np.uint8).reshape(shape))
    return folder


def places(data: Path | None = None, root: Path | None = None) -> Places:
    return Places(data=data, root=root, keras=Path("/nonexistent"))


def test_idx_files_are_read_in_rows(idx_folder: Path) -> None:
    train, test = load_idx(idx_folder)
    assert train.images[1].tolist() == [[6, 7], [8, 9], [10, 11]]
    assert test.labels.tolist() == [0, 1]


def test_a_folder_is_found_directly_below_and_in_the_root(idx_folder: Path) -> None:
    for found in (places(data=idx_folder), places(data=idx_folder.parent), places(root=idx_folder.parent)):
        assert find_folder(found, "digits", IDX_FILES) == idx_folder


def test_named_data_that_is_not_there_is_an_error_and_a_root_without_it_is_not(tmp_path: Path) -> None:
    assert find_folder(places(root=tmp_path), "digits", IDX_FILES) is None
    with pytest.raises(DataNotFound, match=IDX_FILES[0]):
        find_folder(places(data=tmp_path), "digits", IDX_FILES)


@pytest.mark.parametrize("content", [b"", b"not gzip", gzip.compress(b""), gzip.compress(b"\0\0\x08\x01\0\0\0\x09ab")])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(InvalidData, match=r"x\.gz"):
        read_idx(tmp_path / "x.gz")


def test_pictures_without_labels_are_refused(idx_folder: Path) -> None:
    write_idx(idx_folder / IDX_FILES[1], np.zeros(3, np.uint8))
    with pytest.raises(InvalidData, match="4 pictures and 3 labels"):
        load_idx(idx_folder)


def test_no_network_is_said_at_once() -> None:
    with pytest.raises(DataNotFound, match="cannot be reached"):
        check_host("http://127.0.0.1:9/mnist.npz")


def test_a_download_that_fails_is_told_apart_from_an_error_of_ours(tmp_path: Path) -> None:
    def load() -> Arrays:
        raise Exception("URL fetch failure")

    (tmp_path / "cached").write_bytes(b"")
    with pytest.raises(DataNotFound, match="URL fetch failure"):
        download_with_keras(load, tmp_path / "cached", "http://127.0.0.1:9/")


def test_a_stratified_split_keeps_the_shares_and_follows_the_seed() -> None:
    labels = np.repeat([0, 1], [80, 20])
    kept, held = stratified(labels, 0.1, seed=3)
    assert np.bincount(labels[held]).tolist() == [8, 2]
    assert sorted([*kept, *held]) == list(range(100))
    assert np.array_equal(held, stratified(labels, 0.1, seed=3)[1])
    assert not np.array_equal(held, stratified(labels, 0.1, seed=4)[1])


def test_a_class_with_one_picture_cannot_be_split() -> None:
    with pytest.raises(InvalidData, match="class 1 has 1 picture"):
        stratified(np.array([0, 0, 1]), 0.1, seed=0)
