"""The journal: a SQLite file beside the output that holds the inputs and the rows until the output is written.

A process that is killed loses what was in flight and nothing else: each answer of the service is one transaction, a row
is keyed by its input, and what has no row is still to do. `synchronous=NORMAL` with a write-ahead log: a killed process
loses no transaction; a machine without power may lose the last ones, and never half of one.
"""

import json
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

from sightline.errors import UsageError

from clients.batch.errors import NotAJournal, OutputFailed
from clients.batch.rows import FAILED, OK, Row, Top
from clients.batch.sources import Input
from clients.batch.truth import known_truths
from serving.contract.names import is_utf8, shown_path

SCHEMA_VERSION = 2  # SQLite's user_version; 0 in the journals of older versions, which had none. Raise it with SCHEMA
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE inputs (ordinal INTEGER PRIMARY KEY, path BLOB NOT NULL, locator TEXT, truth TEXT);
CREATE TABLE results (
    ordinal INTEGER PRIMARY KEY, done INTEGER, status TEXT NOT NULL, label TEXT, score REAL, top TEXT, version INTEGER,
    ms REAL, sha256 TEXT, error_code TEXT, error TEXT, previous_label TEXT, label_id TEXT
);
CREATE TABLE previous (
    ordinal INTEGER PRIMARY KEY, status TEXT NOT NULL, label TEXT, score REAL, top TEXT, version INTEGER, ms REAL,
    sha256 TEXT, label_id TEXT
);
"""
UPGRADES = {
    1: ("ALTER TABLE results ADD COLUMN label_id TEXT", "ALTER TABLE previous ADD COLUMN label_id TEXT"),
}  # from each older schema to the next
PAGE = 2048  # inputs that are fetched at a time
ANSWERED = "status, label, score, top, version, ms, sha256, label_id"


@dataclass(frozen=True, slots=True)
class Before:
    """The answer of an earlier run for an input."""

    sha256: str
    version: int
    label: str


@dataclass(frozen=True, slots=True)
class Pending:
    """An input without a row. before: with --changed-only, its last good row; None where there is none."""

    ordinal: int
    path: str
    locator: str
    before: Before | None


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one pending input. unchanged: the earlier row stands, and no other field here counts."""

    ordinal: int
    status: str = OK
    label: str = ""
    score: float | None = None
    top: tuple[Top, ...] = ()
    version: int | None = None
    ms: float | None = None
    sha256: str = ""
    error_code: str = ""
    error: str = ""
    previous_label: str = ""
    label_id: str = ""
    unchanged: bool = False


class Journal:
    """The inputs and rows of one run on disk. One process at a time; a second one gets a UsageError."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._db = sqlite3.connect(path, isolation_level=None, timeout=0.5)
        try:
            with translated(path):
                self._begin()
        except BaseException:
            self._db.close()
            raise

    def _begin(self) -> None:
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("BEGIN IMMEDIATE")  # takes the lock and keeps it
        if not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
            for statement in SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._upgrade()
        self._db.execute("COMMIT")
        self._require_schema()
        self._recorded = self._count("SELECT coalesce(max(done), 0) FROM results")

    def _upgrade(self) -> None:
        """Bring the journal of an earlier version up to date: its run goes on."""
        while (found := self._count("PRAGMA user_version")) in UPGRADES:
            for statement in UPGRADES[found]:
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {found + 1}")

    def _require_schema(self) -> None:
        found = self._count("PRAGMA user_version")
        if found != SCHEMA_VERSION:
            age = "an older" if found < SCHEMA_VERSION else "a newer"
            raise NotAJournal(
                f"{self.path} is the journal of {age} version of Sightline: it has schema {found}, and this version "
                f"reads schema {SCHEMA_VERSION}.",
                hint="Finish the run with the version that began it, or begin again with --overwrite.",
            )

    def close(self) -> None:
        """Close the file and fold its write-ahead log in."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def meta(self, key: str) -> str | None:
        """Read a note of the run; None where it was not made."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def note(self, key: str, value: str) -> None:
        """Make a note."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def list_inputs(self, inputs: Iterable[Input], notes: Mapping[str, str], labels: Sequence[str] = ()) -> int:
        """Record every input, all or none, and the notes with them. Returns the number of inputs.

        labels: of the model. Where the source gives no truth, folders that are named like them do.
        """
        with self._transaction():
            self._db.execute("DELETE FROM results")
            self._insert_inputs(inputs, labels)
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(notes.items()))
        return self.total()

    def list_again(self, inputs: Iterable[Input], notes: Mapping[str, str], labels: Sequence[str] = ()) -> int:
        """List the inputs anew; one that was there before keeps its last good row as `before`. labels: as above.

        The n-th occurrence of a path is the n-th occurrence that was.
        """
        occurrence = "row_number() OVER (PARTITION BY path ORDER BY ordinal) AS nth"
        with self._transaction():
            self._db.execute(
                f"CREATE TEMP TABLE old AS SELECT path, {occurrence}, {ANSWERED} "
                "FROM inputs JOIN results USING (ordinal)"
            )
            self._db.execute("CREATE INDEX temp.old_path ON old (path, nth)")
            for table in ("results", "previous"):
                self._db.execute(f"DELETE FROM {table}")
            self._insert_inputs(inputs, labels)
            self._db.execute(
                f"INSERT INTO previous SELECT ordinal, {ANSWERED} "
                f"FROM (SELECT ordinal, path, {occurrence} FROM inputs) JOIN old USING (path, nth) "
                f"WHERE status = '{OK}'"
            )
            self._db.execute("DROP TABLE temp.old")
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(notes.items()))
        return self.total()

    def _insert_inputs(self, inputs: Iterable[Input], labels: Sequence[str]) -> None:
        self._db.execute("DELETE FROM inputs")
        rows = ((os.fsencode(one.path), _storable(one.locator), shown_path(one.truth)) for one in inputs)
        self._db.executemany("INSERT INTO inputs (path, locator, truth) VALUES (?, ?, ?)", rows)
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('labels', ?)", (json.dumps(list(labels)),))
        if not labels:
            return
        stored = self._db.execute("SELECT path, truth FROM inputs")
        truths = known_truths(((os.fsdecode(path), truth) for path, truth in stored), labels)
        if truths.folders:
            self._db.create_function("folder_truth", 1, lambda path: truths.of(os.fsdecode(path), ""))
            self._db.execute("UPDATE inputs SET truth = folder_truth(path)")

    def total(self) -> int:
        """Count the inputs."""
        return self._count("SELECT count(*) FROM inputs")

    def done(self) -> int:
        """Count the inputs that have a row."""
        return self._count("SELECT count(*) FROM results")

    def failures(self) -> int:
        """Count the rows that failed."""
        return self._count(f"SELECT count(*) FROM results WHERE status = '{FAILED}'")

    def pending(self) -> Iterator[Pending]:
        """Yield the inputs without a row, in their order. Rows may be recorded meanwhile."""
        last = 0
        while page := self._pending_after(last):
            yield from page
            last = page[-1].ordinal

    def record(self, results: Sequence[Result]) -> None:
        """Write rows, all or none."""
        with self._transaction():
            first = self._recorded + 1
            self._db.executemany(
                "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [_values(result, first + place) for place, result in enumerate(results) if not result.unchanged],
            )
            self._db.executemany(
                f"INSERT INTO results (ordinal, done, {ANSWERED}, previous_label) "
                f"SELECT ordinal, ?, {ANSWERED}, label FROM previous WHERE ordinal = ?",
                [(first + place, result.ordinal) for place, result in enumerate(results) if result.unchanged],
            )
        self._recorded += len(results)

    def forget_failures(self) -> int:
        """Make every failed input pending again. Returns how many there are."""
        failed = self.failures()
        with self._transaction():
            self._db.execute("DELETE FROM results WHERE status = ?", (FAILED,))
        return failed

    def rows(self, model: str, *, ordered: bool) -> Iterator[Row]:
        """Yield every row: in the order of the inputs, or in that of the answers."""
        query = self._db.execute(
            "SELECT path, status, label, label_id, score, top, version, ms, sha256, error_code, error, truth, "
            "previous_label FROM results JOIN inputs USING (ordinal) "
            f"ORDER BY {'results.ordinal' if ordered else 'done'}"
        )
        for path, status, label, label_id, score, top, version, ms, sha256, code, error, truth, before in query:
            yield Row(
                shown_path(os.fsdecode(path)),
                status,
                label or "",
                label_id or "",
                score,
                tuple(map(tuple, json.loads(top or "[]"))),
                model,
                version,
                ms,
                sha256 or "",
                code or "",
                error or "",
                truth or "",
                before or "",
            )

    def tally(self, column: str, status: str) -> list[tuple[str, int]]:
        """Count each value of `column` among the rows of a status, the most frequent first."""
        query = f"SELECT {column}, count(*) FROM results WHERE status = ? GROUP BY 1 ORDER BY 2 DESC, 1"
        return [(str(value), count) for value, count in self._db.execute(query, (status,))]

    def flips(self) -> list[tuple[str, str, int]]:
        """Count the rows whose label differs from the earlier run: (label before, label now, how many)."""
        query = (
            "SELECT previous_label, label, count(*) FROM results WHERE status = ? AND previous_label <> '' "
            "AND previous_label <> label GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"
        )
        return list(self._db.execute(query, (OK,)))

    def confusion(self) -> list[tuple[str, str, int]]:
        """Count the rows that have a label and a truth: (truth, label, how many)."""
        if not self._db.execute("SELECT 1 FROM inputs WHERE truth <> '' LIMIT 1").fetchone():
            return []
        query = (
            "SELECT truth, label, count(*) FROM results JOIN inputs USING (ordinal) "
            "WHERE status = ? AND truth <> '' GROUP BY 1, 2 ORDER BY 1, 2"
        )
        return list(self._db.execute(query, (OK,)))

    def _pending_after(self, ordinal: int) -> list[Pending]:
        query = (
            "SELECT i.ordinal, i.path, i.locator, p.sha256, p.version, p.label FROM inputs i "
            "LEFT JOIN previous p ON p.ordinal = i.ordinal "
            "WHERE i.ordinal > ? AND NOT EXISTS (SELECT 1 FROM results r WHERE r.ordinal = i.ordinal) "
            f"ORDER BY i.ordinal LIMIT {PAGE}"
        )
        return [
            Pending(number, os.fsdecode(path), _loaded(locator), Before(sha256, version, label) if sha256 else None)
            for number, path, locator, sha256, version, label in self._db.execute(query, (ordinal,))
        ]

    def _count(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with translated(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


def _storable(locator: str) -> str | bytes:
    """SQLite's text is UTF-8; a locator that is a path may not be."""
    return locator if is_utf8(locator) else os.fsencode(locator)


def _loaded(locator: str | bytes) -> str:
    return os.fsdecode(locator)


def _values(result: Result, done: int) -> tuple[Any, ...]:
    return (
        result.ordinal,
        done,
        result.status,
        _text(result.label),
        result.score,
        _top(result.top),
        result.version,
        result.ms,
        result.sha256,
        result.error_code,
        _text(result.error),
        result.previous_label,
        result.label_id,
    )


def _top(top: Sequence[Top]) -> str:
    """JSON in half of the time that `json.dumps` takes: a model has the same few labels for every picture."""
    if not math.isfinite(sum([entry[1] for entry in top])):
        return json.dumps(top)  # which names them as `json.loads` reads them
    return f"[{','.join([_entry(*entry) for entry in top])}]"


def _entry(label: str, score: float, class_id: str = "") -> str:
    return f"[{_quoted(label)},{score!r},{_quoted(class_id)}]" if class_id else f"[{_quoted(label)},{score!r}]"


@lru_cache(maxsize=4096)
def _quoted(label: str) -> str:
    return json.dumps(label)


def _text(text: str) -> str:
    """Escape what SQLite cannot hold: errors quote paths that are not UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Translate SQLite's errors: the file is locked, full, or no journal."""
    try:
        yield
    except sqlite3.OperationalError as exc:
        if "locked" in str(exc):
            raise UsageError(f"{path} is in use: another run writes the same output.") from exc
        raise OutputFailed(
            f"The journal {path} cannot be written: {exc}",
            hint="What was recorded is safe. Make room, then run the same command again: it resumes.",
        ) from exc
    except sqlite3.DatabaseError as exc:
        raise NotAJournal(
            f"{path} is not a journal of Sightline: {exc}", hint="Move it away, or begin again with --overwrite."
        ) from exc


def journal_path(output: str) -> str:
    """The path of the journal of an output."""
    return f"{output}.journal"


def remove_journal(output: str) -> None:
    """Remove the journal of an output."""
    for suffix in ("", "-wal", "-shm"):
        if os.path.exists(journal_path(output) + suffix):
            os.remove(journal_path(output) + suffix)
