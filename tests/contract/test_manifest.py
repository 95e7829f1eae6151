"""The manifest of a version: whatever was changed, lost or added since is found."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.contract.errors import ModelError
from serving.contract.manifest import MANIFEST_FILE, check_files, write_manifest


@pytest.fixture
def version(tmp_path: Path) -> Path:
    (tmp_path / "variables").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    (tmp_path / "variables" / "variables.index").write_bytes(b"index")
    write_manifest(tmp_path)
    return tmp_path


def test_a_version_that_was_left_alone_agrees(version: Path) -> None:
    assert check_files(version)
    assert set(json.loads((version / MANIFEST_FILE).read_text())["files"]) == {
        "saved_model.pb",
        "variables/variables.index",
    }


def test_a_version_without_a_manifest_is_told_apart(version: Path) -> None:
    (version / MANIFEST_FILE).unlink()
    assert not check_files(version)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "other bytes of the same length": (lambda v: (v / "saved_model.pb").write_bytes(b"grape"), "saved_model.pb was ch"),
    "a file less": (lambda v: (v / "variables" / "variables.index").unlink(), "variables/variables.index is missing"),
    "a file more": (lambda v: (v / "model.tflite").write_bytes(b"x"), "model.tflite was added"),
    "a file in a hidden folder": (lambda v: ((v / ".x").mkdir(), (v / ".x" / "y").touch()), ".x/y was added"),
    "a name that is not UTF-8": (lambda v: Path(os.fsdecode(os.fsencode(v) + b"/\xb0\xa1")).touch(), "was added"),
    "an empty manifest": (lambda v: (v / MANIFEST_FILE).write_bytes(b""), "cannot be read"),
    "a manifest nested too deep": (lambda v: (v / MANIFEST_FILE).write_text("[" * 100_000), "cannot be read"),
    "a manifest of nothing": (
        lambda v: (v / MANIFEST_FILE).write_text('{"schema_version": 1, "files": {}}'),
        "no manifest of schema 1",
    ),
    "a list": (lambda v: (v / MANIFEST_FILE).write_text("[]"), "cannot be read"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_found_and_named(version: Path, change: str) -> None:
    apply, words = CHANGES[change]
    apply(version)
    with pytest.raises(ModelError, match=words.replace(".", r"\.")) as caught:
        check_files(version)
    assert caught.value.hint == "Export the model again."


def test_many_changes_are_counted(version: Path) -> None:
    for number in range(5):
        (version / f"more-{number}").touch()
    with pytest.raises(ModelError, match="more-2 was added; and 2 more"):
        check_files(version)


def test_files_that_systems_leave_behind_change_nothing(version: Path) -> None:
    for name in (".DS_Store", "._saved_model.pb", "Thumbs.db", "desktop.ini", ".nfs000000012"):
        (version / "variables" / name).write_bytes(b"x")
    assert check_files(version)


@pytest.mark.parametrize("has_manifest", [True, False])
def test_a_pipe_and_a_circle_of_links_are_refused_at_once(version: Path, has_manifest: bool) -> None:
    if not has_manifest:
        (version / MANIFEST_FILE).unlink()
    os.mkfifo(version / "pipe")
    with pytest.raises(ModelError, match="neither a file nor a folder"):
        check_files(version)
    (version / "pipe").unlink()
    (version / "variables" / "circle").symlink_to(version, target_is_directory=True)
    with pytest.raises(ModelError, match="a link to one of its own parents"):
        check_files(version)


def test_links_to_files_and_folders_are_read(version: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("elsewhere")
    (version / "variables").rename(place / "variables")
    (version / "variables").symlink_to(place / "variables", target_is_directory=True)
    assert check_files(version)
