"""The guard of the unit tests, and the cache of what tests export."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import exported
from tests.exported import cached


def test_a_unit_test_that_starts_a_child_process_fails() -> None:
    with pytest.raises(AssertionError, match="starts a child process"):
        subprocess.run(["true"], check=True)
    with pytest.raises(AssertionError, match="starts a child process"):
        multiprocessing.get_context("spawn").Process(target=os.getpid).start()
    with pytest.raises(AssertionError, match="starts a child process"):
        os.fork()


def test_a_unit_test_that_imports_tensorflow_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "keras"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(AssertionError, match="imports keras"):
        import keras  # noqa: F401


@pytest.mark.integration
def test_an_integration_test_may() -> None:
    subprocess.run(["true"], check=True)


def test_a_cached_folder_is_made_once_and_anew_when_its_data_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported, "CACHE", tmp_path / "cache")
    data = tmp_path / "data"
    data.write_text("one")

    def make(folder: Path) -> None:
        (folder / "copy").write_text(data.read_text())

    first = cached("x", make, data)
    (first / "mark").touch()
    assert (cached("x", make, data) / "mark").exists()
    data.write_text("two")
    again = cached("x", make, data)
    assert (again / "copy").read_text() == "two"
    assert not first.exists()


def test_a_folder_whose_making_failed_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exported, "CACHE", tmp_path / "cache")

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        cached("x", fail)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["x.lock"]
