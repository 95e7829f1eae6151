"""The SQLite store's file: its key, its failures, kill -9."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from serving.contract.errors import GalleryBusy, GalleryCorrupt, GalleryFull, GalleryKeyMissing, GalleryUnavailable
from serving.faces.galleries import sqlite_store
from serving.faces.galleries.encryption import cipher_for
from serving.faces.galleries.gallery import Entry
from serving.faces.galleries.sqlite_store import SqliteStore

ENCODER = "dlib@1"
ROOT = Path(__file__).parents[3]
KEY, OTHER_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "/" * 42 + "8="


def marked(person: str = "ada", photo: bytes | None = None) -> Entry:
    return Entry(person, np.full(128, 0.25, np.float32), "feedc0de", {}, photo)


def everything(folder: Path) -> bytes:
    """All bytes of all files that the store keeps."""
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def test_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "new" / "faces.db").close()
    assert (tmp_path / "new" / "faces.db").stat().st_mode & 0o777 == 0o600


def test_forgetting_leaves_no_bytes_behind(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "faces.db")
    vector = np.random.default_rng(0).normal(0, 1, 128).astype(np.float32)
    entries = [Entry("Ada Lovelace", vector, "feedc0de", {}, b"photo of ada" * 999)]
    store.enrol("default", [*entries, marked("Bob")], encoder=ENCODER)
    held = everything(tmp_path)
    assert vector.tobytes() in held
    assert b"Ada Lovelace" in held
    store.forget("default", "Ada Lovelace")
    left = everything(tmp_path)
    assert vector.tobytes() not in left
    assert b"Ada Lovelace" not in left
    assert b"photo of ada" not in left
    assert b"Bob" in left
    assert len(left) < len(held)
    store.close()


def test_encrypted_file_holds_nothing_readable(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "faces.db", cipher_for(KEY))
    store.enrol("default", [marked("Ada Lovelace", b"photo of ada")], encoder=ENCODER)
    held = everything(tmp_path)
    for secret in (b"Ada Lovelace", b"photo of ada", b"feedc0de", marked().encoding.tobytes()):
        assert secret not in held
    assert store.nearest("default", marked().encoding[None], 1, encoder=ENCODER)[0][0].name == "Ada Lovelace"
    store.close()


@pytest.mark.parametrize(("made_with", "opened_with"), [(KEY, ""), (KEY, OTHER_KEY), ("", KEY)])
def test_wrong_key_is_said_so_at_opening(tmp_path: Path, made_with: str, opened_with: str) -> None:
    SqliteStore(tmp_path / "faces.db", cipher_for(made_with)).close()
    with pytest.raises(GalleryKeyMissing, match="SIGHTLINE_FACES_KEY"):
        SqliteStore(tmp_path / "faces.db", cipher_for(opened_with))


def test_locked_file_is_busy(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "faces.db", busy_seconds=0.05)
    other = sqlite3.connect(tmp_path / "faces.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(GalleryBusy, match="try again"):
        store.enrol("default", [marked()], encoder=ENCODER)
    assert store.nearest("default", marked().encoding[None], 1, encoder=ENCODER) == [[]]  # reading goes on
    other.execute("ROLLBACK")
    other.close()
    assert store.enrol("default", [marked()], encoder=ENCODER) == 1
    store.close()


def test_full_disk_stores_nothing_and_says_so(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "faces.db")
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(GalleryFull, match="Make room"):
        store.enrol("default", [marked(photo=bytes(100_000))], encoder=ENCODER)
    store._db.execute("PRAGMA max_page_count = 1000000")
    assert store.count("default") == 0
    assert store.enrol("default", [marked()], encoder=ENCODER) == 1
    store.close()


def test_file_that_is_no_gallery_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "faces.db").write_bytes(b"not a database, by any means" * 100)
    with pytest.raises(GalleryCorrupt, match="not a gallery"):
        SqliteStore(tmp_path / "faces.db")


def test_damaged_file_is_corrupt(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "faces.db")
    store.enrol("default", [marked(str(number)) for number in range(500)], encoder=ENCODER)
    store.close()
    size = (tmp_path / "faces.db").stat().st_size
    with (tmp_path / "faces.db").open("r+b") as file:
        file.seek(4096 * 3)
        file.write(os.urandom(size - 4096 * 3))
    with pytest.raises(GalleryCorrupt, match="backup"):
        list(SqliteStore(tmp_path / "faces.db").entries("default"))


def test_folder_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GalleryUnavailable, match="folder"):
        SqliteStore(tmp_path / "file" / "faces.db")


def test_newer_schema_is_not_touched(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "faces.db").close()
    with sqlite3.connect(tmp_path / "faces.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(GalleryCorrupt, match="newer version"):
        SqliteStore(tmp_path / "faces.db")


def test_process_that_slept_through_many_removals_reads_everything_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "GONE_KEPT", 3)
    sleeper, other = SqliteStore(tmp_path / "faces.db"), SqliteStore(tmp_path / "faces.db")
    other.enrol("default", [marked(str(number)) for number in range(10)], encoder=ENCODER)
    assert len(sleeper.nearest("default", marked().encoding[None], 20, encoder=ENCODER)[0]) == 10
    for number in range(8):
        other.forget("default", str(number))
    found = sleeper.nearest("default", marked().encoding[None], 20, encoder=ENCODER)[0]
    assert [candidate.name for candidate in found] == ["8", "9"]
    sleeper.close()
    other.close()


ENROL_FOR_EVER = """
import sys, numpy as np
from pathlib import Path
from serving.faces.galleries.gallery import Entry
from serving.faces.galleries.sqlite_store import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), 10**6):
    store.enrol("default", [Entry(f"p{number}", np.full(128, number, np.float32), str(number))], encoder="dlib@1")
    print(number, flush=True)
"""


@pytest.mark.integration
def test_what_was_acknowledged_survives_twenty_kills(tmp_path: Path) -> None:
    acknowledged = 0
    for _ in range(20):
        writer = subprocess.Popen(
            [sys.executable, "-c", ENROL_FOR_EVER, str(tmp_path / "faces.db"), str(acknowledged)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert writer.stdout is not None
        for _ in range(25):
            acknowledged = int(writer.stdout.readline()) + 1
        writer.send_signal(signal.SIGKILL)
        rest = writer.communicate()[0].split()
        acknowledged = int(rest[-1]) + 1 if rest else acknowledged
        store = SqliteStore(tmp_path / "faces.db")
        held = {person.name for person in store.people("default")}
        assert {f"p{number}" for number in range(acknowledged)} <= held
        assert len(store.nearest("default", np.zeros((1, 128), np.float32), 1, encoder=ENCODER)[0]) == 1
        acknowledged = len(held)
        store.close()
    assert acknowledged >= 500


def test_forgetting_beside_a_reader_succeeds_and_the_next_change_empties_the_log(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "faces.db", busy_seconds=0.05)
    store.enrol("default", [marked("Ada Lovelace"), marked("Bob")], encoder=ENCODER)
    reader = sqlite3.connect(tmp_path / "faces.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM face").fetchone()
    assert store.forget("default", "Ada Lovelace") == 1
    reader.execute("COMMIT")
    reader.close()
    store.forget("default", "Bob")
    assert b"Ada Lovelace" not in everything(tmp_path)
    store.close()


# ---- the file under a running service


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A gallery with ada, in use."""
    store = SqliteStore(tmp_path / "faces.db")
    store.enrol("default", [marked()], encoder=ENCODER)
    yield store
    store.close()


def test_nothing_is_acknowledged_in_a_deleted_file(store: SqliteStore, tmp_path: Path) -> None:
    (tmp_path / "faces.db").unlink()
    for change in (
        lambda: store.enrol("default", [marked("bob")], encoder=ENCODER),
        lambda: store.forget("default", "ada"),
        lambda: store.people("default"),
    ):
        with pytest.raises(GalleryUnavailable, match="was deleted while it was in use"):
            change()
    assert not (tmp_path / "faces.db").exists()


def test_file_that_is_put_in_its_place_is_taken_up(store: SqliteStore, tmp_path: Path) -> None:
    other = SqliteStore(tmp_path / "backup.db")
    other.enrol("default", [marked("eve")], encoder=ENCODER)
    other.close()
    (tmp_path / "backup.db").replace(tmp_path / "faces.db")
    assert store.enrol("default", [marked("bob")], encoder=ENCODER) == 1
    found = store.nearest("default", marked().encoding[None], 5, encoder=ENCODER)[0]
    assert [candidate.name for candidate in found] == ["eve", "bob"]
    reopened = SqliteStore(tmp_path / "faces.db")
    assert [person.name for person in reopened.people("default")] == ["bob", "eve"]
    reopened.close()


def test_file_that_is_replaced_during_a_change_is_not_acknowledged(store: SqliteStore, tmp_path: Path) -> None:
    SqliteStore(tmp_path / "other.db").close()
    with pytest.raises(GalleryUnavailable, match="was deleted or replaced"), store._writing():
        (tmp_path / "other.db").replace(tmp_path / "faces.db")
    assert store.people("default") == []


def test_file_that_is_damaged_while_in_use_is_corrupt(store: SqliteStore, tmp_path: Path) -> None:
    store.enrol("default", [marked(str(number)) for number in range(500)], encoder=ENCODER)
    store.forget("default", "0")  # empties the log: everything is in the file
    size = (tmp_path / "faces.db").stat().st_size
    with (tmp_path / "faces.db").open("r+b") as file:
        file.seek(4096 * 3)
        file.write(os.urandom(size - 4096 * 3))
    with pytest.raises(GalleryCorrupt, match="backup"):
        store.enrol("default", [marked("bob")], encoder=ENCODER)


def test_nobody_is_a_stranger_because_the_file_was_damaged_while_in_use(store: SqliteStore, tmp_path: Path) -> None:
    store.enrol("default", [marked("bob")], encoder=ENCODER)
    store.forget("default", "bob")  # empties the log: everything is in the file
    store.enrol("default", [marked(str(number)) for number in range(500)], encoder=ENCODER)
    store._empty_log()
    with (tmp_path / "faces.db").open("r+b") as file:
        for page in range(1, file.seek(0, os.SEEK_END) // 4096):
            file.seek(4096 * page + 5)
            file.write(b"\xff" * 300)
    for _ in range(2):
        with pytest.raises(GalleryCorrupt, match="backup"):
            store.people("default")
        with pytest.raises(GalleryCorrupt, match="backup"):
            store.nearest("default", marked().encoding[None], 5, encoder=ENCODER)


@pytest.mark.parametrize("content", [b"", os.urandom(200_000)], ids=["emptied", "overwritten"])
def test_change_is_not_acknowledged_when_the_log_was_damaged(
    store: SqliteStore, tmp_path: Path, content: bytes
) -> None:
    store.enrol("default", [marked("bob")], encoder=ENCODER)
    with (tmp_path / "faces.db-wal").open("wb") as log:
        log.write(content)
    for name in ("eve", "ada"):
        with pytest.raises(GalleryCorrupt, match="-wal was overwritten"):
            store.enrol("default", [marked(name)], encoder=ENCODER)


def test_change_is_not_acknowledged_when_the_log_was_deleted(store: SqliteStore, tmp_path: Path) -> None:
    store.enrol("default", [marked("bob")], encoder=ENCODER)
    (tmp_path / "faces.db-wal").unlink()
    with pytest.raises(GalleryUnavailable, match="-wal was deleted"):
        store.enrol("default", [marked("eve")], encoder=ENCODER)


def test_damaged_file_is_found_when_it_is_opened(store: SqliteStore, tmp_path: Path) -> None:
    store.enrol("default", [marked(str(number)) for number in range(500)], encoder=ENCODER)
    store.close()
    with (tmp_path / "faces.db").open("r+b") as file:
        file.seek(4096 * 6)
        file.write(bytes(4096 * 4))
    with pytest.raises(GalleryCorrupt, match="backup"):
        SqliteStore(tmp_path / "faces.db")


def test_changes_by_another_process_are_no_damage(store: SqliteStore, tmp_path: Path) -> None:
    other = SqliteStore(tmp_path / "faces.db")
    for number in range(3):
        other.enrol("default", [marked(f"p{number}")], encoder=ENCODER)
        other.forget("default", f"p{number}")  # writes to the file itself
        assert store.enrol("default", [marked(f"q{number}")], encoder=ENCODER) == 1
    assert len(other.people("default")) == 4
    other.close()
