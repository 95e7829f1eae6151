"""Publishing: one rename, nothing half done, nothing lost between exports that run at once."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from export.artifact.publishing import check_name, check_space, drafted, latest_version, sweep
from serving.contract.errors import NoSpace, UsageError

HOLD_A_DRAFT = """
import sys, time
from pathlib import Path
from export.artifact.publishing import drafted
with drafted(Path(sys.argv[1]), "m") as draft:
    (draft.path / "half").write_text("x")
    print(draft.path, flush=True)
    time.sleep(60)
"""


def test_versions_are_numbered_from_one(tmp_path: Path) -> None:
    for expected in (1, 2, 3):
        with drafted(tmp_path, "m") as draft:
            (draft.path / "file").write_text("x")
            assert draft.publish() == tmp_path / "m" / str(expected)
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["1", "2", "3"]


def test_next_version_follows_the_highest_number_whatever_else_is_there(tmp_path: Path) -> None:
    for name in ("007", "tmp-9", "12.bak"):
        (tmp_path / "m" / name).mkdir(parents=True)
    assert latest_version(tmp_path / "m") == 7


def test_an_error_while_writing_publishes_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="boom"), drafted(tmp_path, "m"):
        raise ValueError("boom")
    assert list((tmp_path / "m").iterdir()) == []


def test_a_full_disk_is_said_in_words_and_publishes_nothing(tmp_path: Path) -> None:
    with pytest.raises(NoSpace, match="nothing was published"), drafted(tmp_path, "m"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list((tmp_path / "m").iterdir()) == []


def test_space_is_checked_before_writing(tmp_path: Path) -> None:
    with pytest.raises(NoSpace, match="MB free"):
        check_space(tmp_path, 10**18)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../m", ".tmp-x", "a b", "-m", "a\n", "serving-config"])
def test_a_name_that_is_not_a_path_component_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be written"), drafted(tmp_path / "file", "m"):
        pass


def test_killed_exports_draft_is_removed_by_the_next_and_a_living_ones_is_not(tmp_path: Path) -> None:
    def start() -> tuple[subprocess.Popen[str], Path]:
        command = [sys.executable, "-c", HOLD_A_DRAFT, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."})
        assert process.stdout
        return process, Path(process.stdout.readline().strip())

    (dead, abandoned), (alive, in_use) = start(), start()
    try:
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        assert sweep(tmp_path, "m") == [abandoned]
        assert not abandoned.exists()
        assert (in_use / "half").exists()
    finally:
        alive.kill()
        for process in (dead, alive):
            process.communicate()


def test_exports_at_the_same_time_all_get_a_number_of_their_own(tmp_path: Path) -> None:
    published: list[Path] = []

    def publish(mark: int) -> None:
        for _ in range(5):
            with drafted(tmp_path, "m") as draft:
                (draft.path / str(mark)).write_text("x")
                sweep(tmp_path, "m")
                published.append(draft.publish())

    threads = [threading.Thread(target=publish, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(published) == 20
    assert sorted(int(path.name) for path in published) == list(range(1, 21))
    assert all(len(list(path.iterdir())) == 1 for path in published)
