"""Store galleries in one SQLite file and search them in memory.

The file is the truth: write-ahead log, every commit synced, so that acknowledged changes survive kill -9 and power
loss. Before each transaction the store checks that its file is still the one at the path, so that no change is
acknowledged and lost in a file that was deleted or replaced under a running service.

Each process that searches holds a copy of the vectors. Before a search it reads what was committed since its last one:
new faces by their rising ids, forgotten faces by the rising numbers of the table `gone`. Every process thus sees every
change at its next call, for two small reads.
"""

import contextlib
import datetime
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serving.contract.errors import (
    GalleryBusy,
    GalleryCorrupt,
    GalleryError,
    GalleryFull,
    GalleryKeyMissing,
    GalleryUnavailable,
)
from serving.faces.face import ENCODING_SIZE, Encodings
from serving.faces.galleries.encryption import Cipher, NoCipher
from serving.faces.galleries.gallery import (
    DEFAULT_GALLERY,
    AuditRecord,
    Candidate,
    Entry,
    GalleryInfo,
    Person,
    audit_digest,
    check_encoder,
    check_encodings,
    check_expiry,
    check_gallery,
    check_person,
    entry_encodings,
    unknown_gallery,
    unknown_person,
)
from serving.faces.galleries.matching import ExactIndex

SCHEMA_VERSION = 1
BUSY_SECONDS = 5.0  # how long to wait for another process's write
CHUNK = 20_000  # rows to read at a time; 10 MB
GONE_KEPT = 10_000  # rows of `gone`; a process that missed more reads everything again
KEY_PROBE = b"sightline"
LOG_STARTS = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
RESTORE = "Restore a backup, or import an export into a new file."

SCHEMA = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gallery (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, encoder TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS person (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    gallery_id INTEGER NOT NULL REFERENCES gallery ON DELETE CASCADE,
    lookup TEXT NOT NULL,              -- the name, or its HMAC where the file is encrypted
    name BLOB NOT NULL,
    expires TEXT NOT NULL DEFAULT '',  -- ISO 8601 day
    UNIQUE (gallery_id, lookup)
);
CREATE INDEX IF NOT EXISTS person_expires ON person (expires) WHERE expires <> '';
CREATE TABLE IF NOT EXISTS face (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never reused: readers ask for ids above the last one they saw
    gallery_id INTEGER NOT NULL,
    person_id INTEGER NOT NULL REFERENCES person ON DELETE CASCADE,
    encoding BLOB NOT NULL,                -- 128 little-endian float32
    photo_lookup TEXT NOT NULL,            -- the photo's SHA-256, or its HMAC where the file is encrypted
    details BLOB NOT NULL,                 -- JSON: sha256, quality
    UNIQUE (person_id, photo_lookup)
);
CREATE INDEX IF NOT EXISTS face_photo ON face (gallery_id, photo_lookup);
CREATE TABLE IF NOT EXISTS photo (face_id INTEGER PRIMARY KEY REFERENCES face ON DELETE CASCADE, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS gone (number INTEGER PRIMARY KEY AUTOINCREMENT, face_id INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS audit (
    at TEXT NOT NULL, action TEXT NOT NULL, gallery TEXT NOT NULL, person TEXT NOT NULL, count INTEGER NOT NULL
);
"""

# SQLite's primary result codes: https://www.sqlite.org/rescode.html
ERRORS: dict[int, tuple[type[GalleryError] | type[GalleryBusy] | type[GalleryUnavailable], str]] = {
    sqlite3.SQLITE_BUSY: (GalleryBusy, "Another process is writing to it for long: try again in a moment."),
    sqlite3.SQLITE_LOCKED: (GalleryBusy, "Another process is writing to it for long: try again in a moment."),
    sqlite3.SQLITE_FULL: (GalleryFull, "Make room on the disk. Nothing of this request was stored."),
    sqlite3.SQLITE_CORRUPT: (GalleryCorrupt, RESTORE),
    sqlite3.SQLITE_NOTADB: (GalleryCorrupt, "SIGHTLINE_FACES_URL names a file that is not a gallery."),
    sqlite3.SQLITE_CANTOPEN: (GalleryUnavailable, "Check that the folder exists and that this user may write to it."),
    sqlite3.SQLITE_READONLY: (GalleryUnavailable, "Check that this user may write to the file and its folder."),
    sqlite3.SQLITE_IOERR: (GalleryUnavailable, "Check the disk."),
}


class SqliteStore:
    """A Store in a file.

    path: the file; made if it does not exist. cipher: see `encryption`. busy_seconds: longest wait for another writer.
    today: returns the day that expiry is compared with.
    """

    def __init__(
        self,
        path: Path,
        cipher: Cipher | None = None,
        *,
        busy_seconds: float = BUSY_SECONDS,
        today: Callable[[], datetime.date] = lambda: datetime.datetime.now(datetime.UTC).date(),
    ) -> None:
        self._path = path
        self._cipher = cipher or NoCipher()
        self._today = today
        self._lock = threading.RLock()  # one connection and one index: one call at a time
        self._indexes: dict[int, ExactIndex] = {}
        self._last_face = self._last_gone = 0
        self._purged_on: datetime.date | None = None
        self._busy_seconds = busy_seconds
        self._seen: os.stat_result | None = None  # the file, as this process last saw it
        self._log = path.with_name(f"{path.name}-wal")
        self._own_log: tuple[int, int] | None = None
        self._open()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def galleries(self) -> Sequence[GalleryInfo]:
        with self._reading():
            rows = self._db.execute(
                "SELECT name, encoder, (SELECT count(*) FROM person WHERE gallery_id = gallery.id),"
                " (SELECT count(*) FROM face WHERE gallery_id = gallery.id) FROM gallery ORDER BY name"
            )
            return [GalleryInfo(*row) for row in rows]

    def drop(self, gallery: str) -> int:
        with self._writing():
            number = self._gallery(gallery)[0]
            count = self._remove("SELECT id FROM person WHERE gallery_id = ?", (number,))
            self._db.execute("DELETE FROM gallery WHERE id = ?", (number,))
            self._record("drop", gallery, "", count)
            self._shrink()
        self._empty_log()
        return count

    def enrol(
        self, gallery: str, entries: Sequence[Entry], *, encoder: str, replace: bool = False, expires: str | None = None
    ) -> int:
        encodings = entry_encodings(entries)
        names = [check_person(entry.person) for entry in entries]
        day = None if expires is None else check_expiry(expires)
        with self._writing():
            number = self._gallery_for(check_gallery(gallery), encoder)
            people = {name: self._person(number, name, day) for name in dict.fromkeys(names)}
            if replace:
                for person in people.values():
                    self._remove_faces("person_id = ?", (person,))
            added: dict[str, int] = dict.fromkeys(people, 0)
            for name, entry, encoding in zip(names, entries, encodings, strict=True):
                added[name] += self._insert(number, people[name], entry, encoding)
            for name, count in added.items():
                self._record("replace" if replace else "enrol", gallery, name, count)
            if replace:
                self._shrink()
        if replace:
            self._empty_log()
        return sum(added.values())

    def forget(self, gallery: str, person: str) -> int:
        name = check_person(person)
        with self._writing():
            number = self._gallery_or_none(gallery)
            where = "SELECT id FROM person WHERE gallery_id = ? AND lookup = ?"
            values = (number, self._cipher.lookup(name))
            if self._db.execute(where, values).fetchone() is None:
                raise unknown_person(gallery, name)
            count = self._remove(where, values)
            self._record("forget", gallery, name, count)
            self._shrink()
        self._empty_log()
        return count

    def people(self, gallery: str) -> Sequence[Person]:
        with self._reading():
            rows = self._db.execute(
                "SELECT name, (SELECT count(*) FROM face WHERE person_id = person.id), expires FROM person"
                " WHERE gallery_id = ?",
                (self._gallery_or_none(gallery),),
            )
            people = [Person(self._cipher.decrypt(name).decode(), count, expires) for name, count, expires in rows]
        return sorted(people, key=lambda person: person.name)

    def count(self, gallery: str) -> int:
        with self._reading():
            where = (self._gallery_or_none(gallery),)
            return int(self._db.execute("SELECT count(*) FROM face WHERE gallery_id = ?", where).fetchone()[0])

    def nearest(self, gallery: str, encodings: Encodings, k: int, *, encoder: str) -> Sequence[Sequence[Candidate]]:
        queries = check_encodings(encodings)
        with self._reading():
            if (number := self._gallery_or_none(gallery)) is None:
                return [[] for _ in queries]
            check_encoder(gallery, self._gallery(gallery)[1], encoder)
            self._refresh()
            found = self._indexes[number].nearest(queries, k) if number in self._indexes else [[] for _ in queries]
            names = self._names({person for row in found for person, _ in row})
        return [[Candidate(names[person], distance) for person, distance in row] for row in found]

    def owner(self, gallery: str, photo_sha256: str) -> str | None:
        with self._reading():
            row = self._db.execute(
                "SELECT person.name FROM face JOIN person ON person.id = person_id"
                " WHERE face.gallery_id = ? AND photo_lookup = ?",
                (self._gallery_or_none(gallery), self._cipher.lookup(photo_sha256)),
            ).fetchone()
        return None if row is None else self._cipher.decrypt(row[0]).decode()

    def entries(self, gallery: str) -> Iterator[Entry]:
        with self._reading():
            number = self._gallery_or_none(gallery)
            people = self._db.execute(
                "SELECT id, name FROM person WHERE gallery_id = ? ORDER BY id", (number,)
            ).fetchall()
        for person, name in people:
            yield from self._entries_of(person, self._cipher.decrypt(name).decode())

    def audit(self) -> Sequence[AuditRecord]:
        with self._reading():
            rows = self._db.execute("SELECT at, action, gallery, person, count FROM audit ORDER BY rowid")
            return [AuditRecord(*row) for row in rows]

    # ---- opening

    def _open(self) -> None:
        """Open the file at the path, or make it, and check that it is sound and that the key fits."""
        with self._translated():
            with contextlib.suppress(FileExistsError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))  # biometric data: owner only
            before = _identity(self._path.stat())
            self._db = sqlite3.connect(
                self._path, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(self._db)
                self._require_sound()
                self._seen = self._path.stat()
                if _identity(self._seen) != before:
                    raise self._replaced()
                self._check_key()
            except BaseException:
                self._db.close()
                self._seen = None
                raise

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before the first table
        _use_wal(db, self._busy_seconds)
        for pragma in ("synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
            db.execute(f"PRAGMA {pragma}")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise GalleryCorrupt(
                f"{self._path} was written by a newer version of Sightline (schema {version}).",
                hint="Update Sightline.",
            )
        if version < SCHEMA_VERSION:
            db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")

    def _require_sound(self) -> None:
        """Raise GalleryCorrupt unless the pages of the file hang together, as they are on the disk."""
        self._db.execute("PRAGMA shrink_memory").fetchall()  # else pages in memory hide those on the disk
        (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise GalleryCorrupt(f"The gallery {self._path} is damaged: {found}", hint=RESTORE)

    def _require_same_file(self) -> None:
        """Check the file at the path before a transaction.

        A file that was put in its place is opened instead. One that somebody else has written to is checked for damage,
        before reads too: SQLite may find fewer rows in damaged pages, and somebody known would be a stranger.
        Raises GalleryUnavailable if there is none, GalleryCorrupt if it is damaged.
        """
        try:
            found = self._path.stat()
        except FileNotFoundError as exc:
            raise GalleryUnavailable(
                f"The gallery {self._path} was deleted while it was in use.",
                hint="Put the file back, or restart the service to begin an empty gallery.",
            ) from exc
        if self._seen is None or _identity(found) != _identity(self._seen):
            self._db.close()
            self._remove_own_log()
            self._indexes.clear()
            self._last_face = self._last_gone = 0
            self._purged_on = None
            self._open()
        elif _written(found) != _written(self._seen):
            self._require_sound()
            self._seen = found

    def _require_committed_to_path(self) -> None:
        """Raise GalleryUnavailable unless the file that was just written is the one at the path."""
        try:
            found = self._path.stat()
        except FileNotFoundError as exc:
            raise self._replaced() from exc
        if self._seen is None or _identity(found) != _identity(self._seen):
            raise self._replaced()
        self._seen = found  # with the time of the last checkpoint, which may be ours
        self._own_log = self._sound_log()

    def _sound_log(self) -> tuple[int, int]:
        """Identify the log that the change was written to. Raises GalleryUnavailable if it is gone, GalleryCorrupt if
        somebody overwrote or emptied it: SQLite goes on writing behind its index, and nobody could open what it wrote.

        Source: the file format of the log, https://www.sqlite.org/fileformat2.html#walformat.
        """
        try:
            with self._log.open("rb") as file:
                start, found = file.read(len(LOG_STARTS[0])), os.fstat(file.fileno())
        except FileNotFoundError as exc:
            raise GalleryUnavailable(
                f"The log {self._log} was deleted while it was in use.", hint="Restart the service."
            ) from exc
        if start and start not in LOG_STARTS:  # nothing in it: a checkpoint has just emptied it
            raise GalleryCorrupt(f"The log {self._log} was overwritten while it was in use.", hint=RESTORE)
        return _identity(found)

    def _remove_own_log(self) -> None:
        """Remove the log of a file that was replaced: SQLite leaves it, and would apply it to the new file."""
        with contextlib.suppress(FileNotFoundError):
            if _identity(self._log.stat()) == self._own_log:  # else it was put there with the new file
                self._log.unlink()
                self._path.with_name(f"{self._path.name}-shm").unlink()

    def _replaced(self) -> GalleryUnavailable:
        return GalleryUnavailable(
            f"The gallery {self._path} was deleted or replaced while it was in use.", hint="Try again in a moment."
        )

    def _check_key(self) -> None:
        with self._writing():
            row = self._db.execute("SELECT value FROM about WHERE key = 'key_probe'").fetchone()
            if row is None:
                self._db.execute("INSERT INTO about VALUES ('key_probe', ?)", (self._cipher.encrypt(KEY_PROBE),))
                return
        if self._cipher.decrypt(row[0]) != KEY_PROBE:
            raise GalleryKeyMissing(
                f"{self._path} is encrypted and no key was given.", hint="Set SIGHTLINE_FACES_KEY to its key."
            )

    # ---- transactions

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Run reads in one snapshot, in which expired persons are gone."""
        with self._lock, self._translated():
            self._require_same_file()
            self._purge_expired()
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Run a transaction; when it ends, it is on the disk, in the file at the path."""
        with self._lock, self._translated():
            self._require_same_file()
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
                self._require_committed_to_path()
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Translate SQLite's errors to Sightline's; the only place that does."""
        try:
            yield
        except sqlite3.Error as exc:
            code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
            kind, hint = ERRORS.get(code, (GalleryError, ""))
            raise kind(f"the gallery {self._path}: {exc}", hint=hint) from exc
        except OSError as exc:
            raise GalleryUnavailable(
                f"The gallery {self._path} cannot be made: {exc.strerror}.",
                hint="Check that this user may write to its folder.",
            ) from exc

    # ---- galleries, persons and faces, inside a transaction

    def _gallery(self, gallery: str) -> tuple[int, str]:
        row = self._db.execute("SELECT id, encoder FROM gallery WHERE name = ?", (check_gallery(gallery),)).fetchone()
        if row is None:
            raise unknown_gallery(gallery)
        return int(row[0]), str(row[1])

    def _gallery_or_none(self, gallery: str) -> int | None:
        """Return the gallery's id; None for the default gallery before its first enrolment."""
        found = self._db.execute("SELECT id FROM gallery WHERE name = ?", (check_gallery(gallery),)).fetchone()
        if found is None and gallery != DEFAULT_GALLERY:
            raise unknown_gallery(gallery)
        return None if found is None else int(found[0])

    def _gallery_for(self, gallery: str, encoder: str) -> int:
        self._db.execute("INSERT OR IGNORE INTO gallery (name, encoder) VALUES (?, ?)", (gallery, encoder))
        number, theirs = self._gallery(gallery)
        if theirs != encoder and not self._db.execute("SELECT 1 FROM face WHERE gallery_id = ?", (number,)).fetchone():
            self._db.execute("UPDATE gallery SET encoder = ? WHERE id = ?", (encoder, number))
            return number
        check_encoder(gallery, theirs, encoder)
        return number

    def _person(self, gallery: int, name: str, expires: str | None) -> int:
        lookup = self._cipher.lookup(name)
        self._db.execute(
            "INSERT OR IGNORE INTO person (gallery_id, lookup, name) VALUES (?, ?, ?)",
            (gallery, lookup, self._cipher.encrypt(name.encode())),
        )
        where = "gallery_id = ? AND lookup = ?"
        if expires is not None:
            self._db.execute(f"UPDATE person SET expires = ? WHERE {where}", (expires, gallery, lookup))
        return int(self._db.execute(f"SELECT id FROM person WHERE {where}", (gallery, lookup)).fetchone()[0])

    def _insert(self, gallery: int, person: int, entry: Entry, encoding: Encodings) -> int:
        details = json.dumps({"sha256": entry.photo_sha256, "quality": entry.quality})
        cursor = self._db.execute(
            "INSERT OR IGNORE INTO face (gallery_id, person_id, encoding, photo_lookup, details)"
            " VALUES (?, ?, ?, ?, ?)",
            (
                gallery,
                person,
                self._cipher.encrypt(encoding.astype("<f4").tobytes()),
                self._cipher.lookup(entry.photo_sha256),
                self._cipher.encrypt(details.encode()),
            ),
        )
        if cursor.rowcount and entry.photo is not None:
            self._db.execute("INSERT INTO photo VALUES (?, ?)", (cursor.lastrowid, self._cipher.encrypt(entry.photo)))
        return cursor.rowcount

    def _remove(self, persons: str, values: tuple[Any, ...]) -> int:
        """Remove the persons whose ids the query `persons` returns, with their faces. Returns the number of faces."""
        count = self._remove_faces(f"person_id IN ({persons})", values)
        self._db.execute(f"DELETE FROM person WHERE id IN ({persons})", values)
        return count

    def _remove_faces(self, where: str, values: tuple[Any, ...]) -> int:
        self._db.execute(f"INSERT INTO gone (face_id) SELECT id FROM face WHERE {where}", values)
        self._db.execute("DELETE FROM gone WHERE number <= (SELECT max(number) FROM gone) - ?", (GONE_KEPT,))
        return self._db.execute(f"DELETE FROM face WHERE {where}", values).rowcount

    def _record(self, action: str, gallery: str, person: str, count: int) -> None:
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        digest = audit_digest(gallery, person) if person else ""
        self._db.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?)", (at, action, gallery, digest, count))

    def _names(self, people: set[int]) -> dict[int, str]:
        marks = ", ".join("?" * len(people))
        rows = self._db.execute(f"SELECT id, name FROM person WHERE id IN ({marks})", tuple(people))
        return {number: self._cipher.decrypt(name).decode() for number, name in rows}

    def _entries_of(self, person: int, name: str) -> list[Entry]:
        with self._reading():
            rows = self._db.execute(
                "SELECT encoding, details, data FROM face LEFT JOIN photo ON face_id = id"
                " WHERE person_id = ? ORDER BY id",
                (person,),
            ).fetchall()
        return [self._entry(name, *row) for row in rows]

    def _entry(self, name: str, encoding: bytes, details: bytes, photo: bytes | None) -> Entry:
        told = json.loads(self._cipher.decrypt(details))
        vector = np.frombuffer(self._cipher.decrypt(encoding), "<f4")
        return Entry(
            name, vector, told["sha256"], told["quality"], None if photo is None else self._cipher.decrypt(photo)
        )

    # ---- memory

    def _refresh(self) -> None:
        """Update the vectors in memory to the state of the file, inside a reading transaction."""
        first, last = self._db.execute("SELECT coalesce(min(number), 0), coalesce(max(number), 0) FROM gone").fetchone()
        if first > self._last_gone + 1:  # rows that this process never read are gone
            self._indexes.clear()
            self._last_face = 0
        new = self._db.execute(
            "SELECT id, gallery_id, person_id, encoding FROM face WHERE id > ? ORDER BY id", (self._last_face,)
        )
        while rows := new.fetchmany(CHUNK):
            self._add(rows)
        gone = self._db.execute("SELECT face_id FROM gone WHERE number > ?", (self._last_gone,)).fetchall()
        for index in self._indexes.values() if gone else ():
            index.remove(face for (face,) in gone)
        self._last_gone = last

    def _add(self, rows: list[tuple[int, int, int, bytes]]) -> None:
        ids, galleries, people, blobs = zip(*rows, strict=True)
        plain = b"".join(map(self._cipher.decrypt, blobs))
        encodings = np.frombuffer(plain, "<f4").reshape(-1, ENCODING_SIZE)
        where, faces, persons = np.asarray(galleries), np.asarray(ids), np.asarray(people)
        for gallery in np.unique(where):
            # mostly all are of one gallery: a slice copies nothing
            chosen = slice(None) if where.min() == where.max() else where == gallery
            index = self._indexes.setdefault(int(gallery), ExactIndex())
            index.add(faces[chosen], persons[chosen], encodings[chosen])
        self._last_face = int(faces[-1])

    # ---- forgetting

    def _purge_expired(self) -> None:
        """Forget expired persons, once a day."""
        today = self._today()
        if self._purged_on == today:
            return
        expired = "FROM person JOIN gallery ON gallery.id = gallery_id WHERE expires <> '' AND expires <= ?"
        rows = self._db.execute(
            f"SELECT person.id, person.name, gallery.name {expired}", (today.isoformat(),)
        ).fetchall()
        if rows:
            with self._writing():
                for person, name, gallery in rows:
                    count = self._remove("SELECT id FROM person WHERE id = ?", (person,))
                    self._record("expire", gallery, self._cipher.decrypt(name).decode(), count)
                self._shrink()
            self._empty_log()
        self._purged_on = today

    def _shrink(self) -> None:
        """Return freed pages, which secure_delete has zeroed, inside the transaction that freed them."""
        self._db.execute("PRAGMA incremental_vacuum").fetchall()

    def _empty_log(self) -> None:
        """Empty the write-ahead log, which still holds what was forgotten.

        A concurrent reader prevents it, without an error; the next change then empties it.
        """
        with self._lock, self._translated():
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._require_committed_to_path()


def _identity(found: os.stat_result) -> tuple[int, int]:
    """Identify a file, whatever its name."""
    return found.st_dev, found.st_ino


def _written(found: os.stat_result) -> tuple[int, int]:
    """Tell two states of a file apart: of ours, only a checkpoint of the log writes to it."""
    return found.st_mtime_ns, found.st_size


def _use_wal(db: sqlite3.Connection, busy_seconds: float) -> None:
    """Switch to the write-ahead log. SQLite does not wait while another process does the same, so wait here."""
    until = time.monotonic() + busy_seconds
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.02)
