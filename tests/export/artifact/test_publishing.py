"""Publishing: one rename, nothing half done, nothing lost between exports that run at the same time."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from export.artifact.publishing import check_name, check_space, draft_version, next_number, remove_abandoned_drafts
from serving.contract.errors import NoSpace, UsageError
from serving.contract.manifest import check_files

HOLD_A_DRAFT = """
import sys, time
from pathlib import Path
from export.artifact.publishing import draft_version
with draft_version(Path(sys.argv[1]), "m") as draft:
    (draft.path / "half").write_text("x")
    print(draft.path, flush=True)
    time.sleep(60)
"""


def test_versions_are_numbered_from_one(tmp_path: Path) -> None:
    for expected in (1, 2, 3):
        with draft_version(tmp_path, "m") as draft:
            (draft.path / "file").write_text("x")
            assert draft.publish() == tmp_path / "m" / str(expected)
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["1", "2", "3"]


def test_next_version_follows_the_highest_number_whatever_else_is_there(tmp_path: Path) -> None:
    for name in ("007", "tmp-9", "12.bak"):
        (tmp_path / "m" / name).mkdir(parents=True)
    assert next_number(tmp_path / "m") == 8


def test_an_error_while_writing_publishes_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="boom"), draft_version(tmp_path, "m"):
        raise ValueError("boom")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_versions_that_are_there(tmp_path: Path) -> None:
    with draft_version(tmp_path, "m") as draft:
        draft.publish()
    with pytest.raises(ValueError, match="boom"), draft_version(tmp_path, "m"):
        raise ValueError("boom")
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["1"]


def test_a_full_disk_is_a_readable_error_and_publishes_nothing(tmp_path: Path) -> None:
    with pytest.raises(NoSpace, match="nothing was published"), draft_version(tmp_path, "m"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_space_is_checked_before_writing(tmp_path: Path) -> None:
    with pytest.raises(NoSpace, match="MB free"):
        check_space(tmp_path, 10**18)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../m", ".tmp-x", "a b", "-m", "a\n", "serving-config"])
def test_a_name_that_is_not_a_path_component_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)


def test_a_folder_that_cannot_be_created_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be written"), draft_version(tmp_path / "file", "m"):
        pass


@pytest.mark.integration
def test_the_draft_of_a_killed_export_is_removed_and_one_in_use_is_not(tmp_path: Path) -> None:
    def start() -> tuple[subprocess.Popen[str], Path]:
        command = [sys.executable, "-c", HOLD_A_DRAFT, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."})
        assert process.stdout
        return process, Path(process.stdout.readline().strip())

    (dead, abandoned), (alive, in_use) = start(), start()
    try:
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        assert remove_abandoned_drafts(tmp_path / "m") == [abandoned]
        assert not abandoned.exists()
        assert (in_use / "half").exists()
    finally:
        alive.kill()
        for process in (dead, alive):
            process.communicate()


def test_exports_at_the_same_time_get_different_numbers(tmp_path: Path) -> None:
    published: list[Path] = []

    def publish(mark: int) -> None:
        for _ in range(5):
            with draft_version(tmp_path, "m") as draft:
                (draft.path / str(mark)).write_text("x")
                remove_abandoned_drafts(tmp_path / "m")
                published.append(draft.publish())

    threads = [threading.Thread(target=publish, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(published) == 20
    assert sorted(int(path.name) for path in published) == list(range(1, 21))
    assert all(len(list(path.iterdir())) == 2 and check_files(path) for path in published)  # the mark, assets.extra


def test_a_number_that_nothing_serves_is_refused_and_the_versions_stay(tmp_path: Path) -> None:
    (tmp_path / "m" / str(2**63 - 1)).mkdir(parents=True)
    with pytest.raises(UsageError, match="the highest number that there is"), draft_version(tmp_path, "m") as draft:
        draft.publish()
    assert [path.name for path in (tmp_path / "m").iterdir()] == [str(2**63 - 1)]
