"""Whatever a folder holds, its version fails with a reason, others answer, and the watcher goes on."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serving.contract.card import CARD_SECONDS
from serving.model_server.versions.disk import find_models, fingerprint
from serving.model_server.versions.repository import Repository, RepositorySettings, State, VersionStatus
from serving.runtimes.status import CallError

WORLD_MAY_READ = 0o004


@dataclass
class Word:
    """A servable: the word in its folder."""

    word: str
    signatures: Mapping[str, Any]

    def close(self) -> None:
        pass


def load(name: str, version: int, directory: Path) -> Word:  # noqa: ARG001
    """Read a version as a user who owns nothing would; what its word says is raised."""
    file = directory / "word"
    if not (directory.stat().st_mode & WORLD_MAY_READ and file.stat().st_mode & WORLD_MAY_READ):
        raise PermissionError(13, "Permission denied", str(file))
    word = file.read_text()
    errors: dict[str, BaseException] = {
        "nested": RecursionError("maximum recursion depth exceeded"),
        "memory": MemoryError(),
        "value": ValueError("x"),
        "exit": SystemExit(3),
        "name": ValueError("\udcb0\udca1"),
    }
    if word in errors:
        raise errors[word]
    return Word(word, {})


@pytest.fixture
def watch() -> Iterator[Callable[[Path], Repository[Word]]]:
    """Start a repository that reads a folder of models often, and is stopped at the end."""
    with ExitStack() as stack:

        def start(root: Path) -> Repository[Word]:
            settings = RepositorySettings(poll_seconds=0.02, load_retries=3, fall_back=True)
            repository = Repository(load, settings, models_dir=root)
            repository.start()
            stack.callback(repository.close)
            return repository

        yield start


def publish(root: Path, version: int, word: str, model: str = "m") -> Path:
    folder = root / model / str(version)
    folder.mkdir(parents=True)
    (folder / "word").write_text(word)
    return folder


def status(repository: Repository[Word], version: int, model: str = "m") -> VersionStatus | None:
    try:
        return repository.statuses(model, version)[0]
    except CallError:
        return None


def wait(until: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def is_available(repository: Repository[Word], version: int, model: str = "m") -> bool:
    found = status(repository, version, model)
    return found is not None and found.state == State.AVAILABLE


@pytest.mark.parametrize("word", ["nested", "memory", "value", "exit"])
def test_any_exception_is_a_failure_with_its_reason_from_the_first_on_and_the_version_before_answers(
    tmp_path: Path, watch: Callable[[Path], Repository[Word]], word: str, caplog: pytest.LogCaptureFixture
) -> None:
    publish(tmp_path, 1, "good")
    publish(tmp_path, 2, word)
    repository = watch(tmp_path)  # as after a restart: nothing answers yet
    wait(lambda: is_available(repository, 1))
    failed = status(repository, 2)
    assert failed is not None
    assert failed.error is not None
    assert failed.state == State.LOADING  # it will be tried again
    assert "m version 2, attempt 1: " in caplog.text
    (tmp_path / "m" / "2" / "word").write_text("mended")
    wait(lambda: is_available(repository, 2))
    mended = status(repository, 2)
    assert mended is not None
    assert mended.error is None


@pytest.mark.parametrize("place", ["", "word"])
def test_a_mended_permission_is_found_without_a_restart(
    tmp_path: Path, watch: Callable[[Path], Repository[Word]], place: str
) -> None:
    publish(tmp_path, 1, "good")
    closed = publish(tmp_path, 2, "good") / place
    mode = closed.stat().st_mode
    closed.chmod(0o700)
    repository = watch(tmp_path)
    wait(lambda: is_available(repository, 1))
    failed = status(repository, 2)
    assert failed is not None
    assert str(failed.error).startswith("PERMISSION_DENIED: ")
    closed.chmod(mode)
    wait(lambda: is_available(repository, 2))


def test_the_watcher_survives_whatever_a_folder_does(
    tmp_path: Path, watch: Callable[[Path], Repository[Word]], caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "models"
    publish(root, 1, "good", "vanishes")
    publish(root, 1, "good", "becomes a file")
    publish(root, 1, "good")
    repository = watch(root)
    for name in ("vanishes", "becomes a file", "m"):
        wait(lambda name=name: is_available(repository, 1, name))
    shutil.rmtree(root / "vanishes")
    shutil.rmtree(root / "becomes a file")
    (root / "becomes a file").touch()
    (root / "circle").symlink_to("circle")
    (root / "inside").mkdir()
    (root / "inside" / "1").symlink_to(root, target_is_directory=True)
    (root / "pipes").mkdir()
    os.mkfifo(root / "pipes" / "1")
    Path(os.fsdecode(os.fsencode(root) + b"/\xb0\xa1")).mkdir()
    publish(root, 1, "name", "unprintable")
    publish(root, 1, "good", "later")
    wait(lambda: is_available(repository, 1, "later"))
    wait(lambda: repository.statuses("vanishes")[0].state == State.END)
    assert repository.model_names() == ["inside", "later", "m", "pipes", "unprintable"]
    assert is_available(repository, 1)
    wait(lambda: status(repository, 1, "unprintable") and repository.statuses("unprintable")[0].error)
    assert "\\udcb0" in str(repository.statuses("unprintable")[0].error)
    assert caplog.text.count("because their names are not UTF-8: \\udcb0\\udca1") == 1
    root.rename(tmp_path / "away")
    wait(lambda: "Could not list" in caplog.text)
    (tmp_path / "away").rename(root)
    publish(root, 2, "good")
    wait(lambda: is_available(repository, 2))
    assert caplog.text.count("Could not list") == 1


def test_a_fault_of_one_look_does_not_end_the_watcher(
    tmp_path: Path, watch: Callable[[Path], Repository[Word]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_once(_: Path) -> tuple[dict[str, Path], list[str]]:
        monkeypatch.undo()
        raise RuntimeError("not foreseen")

    monkeypatch.setattr("serving.model_server.versions.repository.find_models", fail_once)
    publish(tmp_path, 1, "good")
    repository = watch(tmp_path)
    wait(lambda: is_available(repository, 1))
    assert find_models(tmp_path) == ({"m": tmp_path / "m"}, [])


def test_an_error_goes_with_the_folder_that_had_it(tmp_path: Path, watch: Callable[[Path], Repository[Word]]) -> None:
    publish(tmp_path, 1, "good")
    broken = publish(tmp_path, 2, "value")
    repository = watch(tmp_path)
    wait(lambda: is_available(repository, 1))
    shutil.rmtree(broken)
    wait(lambda: status(repository, 2) == VersionStatus(2, State.END, None))


def test_a_change_in_a_linked_folder_is_seen_and_a_loop_of_links_ends(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    version = tmp_path / "1"
    elsewhere.mkdir()
    version.mkdir()
    (elsewhere / "weights").write_text("damaged")
    (elsewhere / "loop").symlink_to(elsewhere)
    (version / "variables").symlink_to(elsewhere)
    before = fingerprint(version)
    (elsewhere / "weights").write_text("mended!")
    wait(lambda: fingerprint(version) != before, 2)


def test_other_files_under_a_number_answer_once_no_gateway_has_the_card_of_those_before(tmp_path: Path) -> None:
    """A gateway takes the version's number for its card's, and caches the card for CARD_SECONDS."""
    settings = RepositorySettings(poll_seconds=0.02, fall_back=True, reuse_seconds=1.5)
    repository = Repository(load, settings, models_dir=tmp_path)
    repository.start()
    try:
        publish(tmp_path, 1, "old")
        second = publish(tmp_path, 2, "first")
        wait(lambda: is_available(repository, 2))
        shutil.rmtree(second)
        wait(lambda: not is_available(repository, 2))
        unloaded = time.monotonic()
        publish(tmp_path, 2, "second")
        wait(lambda: is_available(repository, 2))
        assert time.monotonic() - unloaded > 1
        with repository.use("m") as (version, word):
            assert (version, word.word) == (2, "second")
        began = time.monotonic()
        shutil.rmtree(second)  # version 1 is as it was: it need not wait
        wait(lambda: is_available(repository, 1))
        assert time.monotonic() - began < 1
    finally:
        repository.close()


def test_a_gateway_forgets_a_card_before_its_number_is_used_again() -> None:
    assert RepositorySettings().reuse_seconds > CARD_SECONDS
