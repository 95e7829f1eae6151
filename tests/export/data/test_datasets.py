"""Data sets: the places that are searched, and the errors for damaged files."""

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
from tests.export.idx_files import write_idx, write_idx_files


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "root" / "digits"
    train, test = ((np.arange(6 * n, dtype=np.uint8).reshape(n, 3, 2), np.arange(n, dtype=np.uint8)) for n in (4, 2))
    write_idx_files(folder, train, test)
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


@pytest.mark.parametrize(
    "content",
    [b"", b"not gzip", gzip.compress(b""), gzip.compress(b"\0\0\x08\x01\0\0\0\x09ab")],
    ids=["empty", "not gzip", "empty gzip", "cut short"],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(InvalidData, match=r"x\.gz"):
        read_idx(tmp_path / "x.gz")


def test_images_without_labels_are_refused(idx_folder: Path) -> None:
    write_idx(idx_folder / IDX_FILES[1], np.zeros(3, np.uint8))
    with pytest.raises(InvalidData, match="4 images and 3 labels"):
        load_idx(idx_folder)


def test_a_missing_network_is_an_error_at_once() -> None:
    with pytest.raises(DataNotFound, match="cannot be reached"):
        check_host("http://127.0.0.1:9/mnist.npz")


def test_a_failed_download_is_an_error_of_the_data(tmp_path: Path) -> None:
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


def test_a_class_with_one_image_cannot_be_split() -> None:
    with pytest.raises(InvalidData, match="Class 1 has 1 image;"):
        stratified(np.array([0, 0, 1]), 0.1, seed=0)
