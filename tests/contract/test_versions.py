"""TensorFlow Serving's rule for which children of a model's folder are versions, the same everywhere."""

import logging
from pathlib import Path

import pytest

from export.artifact.publishing import next_number
from serving.contract.versions import find_versions, version_dirs


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    for name in ("3", "00000012", "tmp-5", "5.tmp", "-6", "+8", "\u0663", "\u00b2", " 9", ".tmp-4", str(2**63)):
        (tmp_path / name).mkdir()
    (tmp_path / "7").write_text("a plain file")
    return tmp_path


def test_a_version_is_a_child_whose_whole_name_is_a_number(model_dir: Path) -> None:
    found = find_versions(model_dir)
    assert found == {3: model_dir / "3", 7: model_dir / "7", 12: model_dir / "00000012"}


def test_every_reader_follows_the_same_rule(model_dir: Path) -> None:
    assert version_dirs(model_dir) == [model_dir / name for name in ("3", "7", "00000012")]
    assert next_number(model_dir) == 13


def test_the_last_of_two_names_of_a_version_wins_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "001").mkdir()
    with caplog.at_level(logging.WARNING):
        assert find_versions(tmp_path) == {1: tmp_path / "1"}
        find_versions(tmp_path)  # as a server does every second
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: 001 and 1 are the same version; 1 is used"
    ]


def test_a_folder_that_is_missing_holds_no_versions(tmp_path: Path) -> None:
    assert version_dirs(tmp_path / "missing") == []
    with pytest.raises(OSError, match="missing"):
        find_versions(tmp_path / "missing")
