import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from clients.batch.errors import NotAJournal, OutputFailed
from clients.batch.journal import SCHEMA_VERSION, Journal, Result
from clients.batch.sources import Input
from tests.clients.batch.memory import Memory, listed_journal


@pytest.mark.parametrize("score", [0.1, 1, 1e-300, float("inf"), float("nan")])
def test_the_journal_gives_back_what_it_was_given(tmp_path: Path, score: float) -> None:
    top = (("T-shirt/top", score), ('a "quoted" \\ label', 0.30000000000000004), ("Füße\n", 0.0))
    with listed_journal(tmp_path, Memory(1)) as journal:
        journal.record([Result(1, label=top[0][0], score=score, top=top)])
        (row,) = journal.rows("shades", ordered=True)
    assert repr(row.top) == repr(top)


def test_the_id_of_a_class_is_kept(tmp_path: Path) -> None:
    top = (("kuvasz", 0.5, "n02104029"), ("crane", 0.25, "n03126707"))
    with listed_journal(tmp_path, Memory(1)) as journal:
        journal.record([Result(1, label="kuvasz", label_id="n02104029", score=0.5, top=top)])
        (row,) = journal.rows("m", ordered=True)
    assert (row.label, row.label_id, row.top) == ("kuvasz", "n02104029", top)


BEFORE_IDS = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE inputs (ordinal INTEGER PRIMARY KEY, path BLOB NOT NULL, locator TEXT, truth TEXT);
CREATE TABLE results (
    ordinal INTEGER PRIMARY KEY, done INTEGER, status TEXT NOT NULL, label TEXT, score REAL, top TEXT, version INTEGER,
    ms REAL, sha256 TEXT, error_code TEXT, error TEXT, previous_label TEXT
);
CREATE TABLE previous (
    ordinal INTEGER PRIMARY KEY, status TEXT NOT NULL, label TEXT, score REAL, top TEXT, version INTEGER, ms REAL,
    sha256 TEXT
);
INSERT INTO inputs VALUES (1, CAST('a.png' AS BLOB), 'a.png', ''), (2, CAST('b.png' AS BLOB), 'b.png', '');
INSERT INTO results VALUES (1, 1, 'ok', 'cat', 0.5, '[["cat",0.5]]', 3, 1.0, 'aa', '', '', '');
PRAGMA user_version = 1;
"""


def test_a_run_that_began_before_journals_held_ids_goes_on(tmp_path: Path) -> None:
    path = str(tmp_path / "x.journal")
    with closing(sqlite3.connect(path)) as old:
        old.executescript(BEFORE_IDS)
    with Journal(path) as journal:
        assert [one.path for one in journal.pending()] == ["b.png"]
        journal.record([Result(2, label="dog", label_id="n2", score=0.5, top=(("dog", 0.5, "n2"),))])
        rows = list(journal.rows("m", ordered=True))
        assert [(row.label, row.label_id, row.top) for row in rows] == [
            ("cat", "", (("cat", 0.5),)),
            ("dog", "n2", (("dog", 0.5, "n2"),)),
        ]
        journal.list_again([Input("a.png", "a.png"), Input("b.png", "b.png")], {})  # --changed-only
        journal.record([Result(1, unchanged=True), Result(2, unchanged=True)])
        again = list(journal.rows("m", ordered=True))
        assert [(row.label, row.label_id) for row in again] == [("cat", ""), ("dog", "n2")]


def test_a_journal_that_cannot_grow_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "x.journal"))
    journal.list_inputs([Input("a")], {})
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(OutputFailed, match="full"):
        journal.list_inputs([Input("x" * 1000)] * 1000, {})
    assert [one.path for one in journal.pending()] == ["a"]
    journal.close()


def peak_megabytes(folder: Path, count: int) -> float:
    """The most memory that a program takes which lists, records and writes so many inputs."""
    folder = folder / str(count)
    folder.mkdir()
    code = (
        "import re, sys\n"
        "from clients.batch.journal import Journal, Result\n"
        "from clients.batch.sources import Input\n"
        "from clients.batch.writers import write_rows\n"
        "count = int(sys.argv[2])\n"
        "journal = Journal(sys.argv[1] + '/x.journal')\n"
        "journal.list_inputs((Input(f'some/longish/folder/name/{n:09}.png') for n in range(count)), {})\n"
        "chunk = []\n"
        "for pending in journal.pending():\n"
        "    chunk.append(Result(pending.ordinal, label='Boot', score=.5, top=(('Boot', .5),), sha256='0' * 64))\n"
        "    if len(chunk) == 64 or pending.ordinal == count:\n"
        "        journal.record(chunk)\n"
        "        chunk = []\n"
        "assert journal.done() == count\n"
        "write_rows(sys.argv[1] + '/x.csv', journal.rows('m', ordered=False))\n"
        "journal.close()\n"
        # of this program alone: getrusage's maximum is inherited from the process that started it
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
    )
    command = [sys.executable, "-c", code, str(folder), str(count)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1024


@pytest.mark.integration
def test_memory_does_not_grow_with_the_inputs(tmp_path: Path) -> None:
    few, many = peak_megabytes(tmp_path, 2_000), peak_megabytes(tmp_path, 100_000)
    assert many - few < 40  # MB; 98,000 paths and rows as objects would be over 100
    assert many < 200


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_million_inputs_take_less_than_200_megabytes(tmp_path: Path) -> None:
    peak = peak_megabytes(tmp_path, 1_000_000)
    print(f"{peak:.0f} MB")
    assert peak < 200


def test_a_journal_of_a_newer_version_is_named_as_such(tmp_path: Path) -> None:
    with Journal(str(tmp_path / "x.journal")) as journal:
        journal._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(NotAJournal, match="a newer version"):
        Journal(str(tmp_path / "x.journal"))
