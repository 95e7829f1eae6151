"""Store galleries in PostgreSQL with pgvector: for several machines, replicas, managed hosting.

Tables and promises are those of the SQLite store. The database searches (`<->`), exactly: without an index it reads
every vector. Needs the packages psycopg and psycopg_pool, and pgvector in the server.
"""

import contextlib
import datetime
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import psycopg
import psycopg_pool
from psycopg import sql
from psycopg.types.json import Jsonb

from serving.contract.errors import GalleryBusy, GalleryCorrupt, GalleryError, GalleryFull, GalleryUnavailable
from serving.faces.face import Encodings
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

CONNECTIONS = 8  # at most, of each process that opens the store
CONNECT_SECONDS = 5.0
LOCK_SECONDS = 5.0
SCHEMA_LOCK = 0x5167  # any constant; processes that make the tables at the same time take turns by it

SCHEMA = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE SCHEMA IF NOT EXISTS sightline_faces;
CREATE TABLE IF NOT EXISTS sightline_faces.gallery (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, encoder text NOT NULL
);
CREATE TABLE IF NOT EXISTS sightline_faces.person (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    gallery_id bigint NOT NULL REFERENCES sightline_faces.gallery ON DELETE CASCADE,
    name text NOT NULL,
    expires text NOT NULL DEFAULT '',  -- ISO 8601 day
    UNIQUE (gallery_id, name)
);
CREATE INDEX IF NOT EXISTS person_expires ON sightline_faces.person (expires) WHERE expires <> '';
CREATE TABLE IF NOT EXISTS sightline_faces.face (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    gallery_id bigint NOT NULL REFERENCES sightline_faces.gallery ON DELETE CASCADE,
    person_id bigint NOT NULL REFERENCES sightline_faces.person ON DELETE CASCADE,
    encoding vector(128) NOT NULL,
    photo_sha256 text NOT NULL,
    quality jsonb NOT NULL,
    photo bytea,
    UNIQUE (person_id, photo_sha256)
);
CREATE INDEX IF NOT EXISTS face_photo ON sightline_faces.face (gallery_id, photo_sha256);
CREATE TABLE IF NOT EXISTS sightline_faces.audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    action text NOT NULL, gallery text NOT NULL, person text NOT NULL, count bigint NOT NULL
);
"""

# The nearest person's distance is that of the nearest of their faces.
NEAREST = """
SELECT person.name, min(face.encoding <-> %(query)s::vector) AS distance
FROM sightline_faces.face JOIN sightline_faces.person ON person.id = face.person_id
WHERE face.gallery_id = %(gallery)s GROUP BY person.id ORDER BY distance, person.id LIMIT %(k)s
"""

# Classes of psycopg, subclasses first: https://www.psycopg.org/psycopg3/docs/api/errors.html
ERRORS: tuple[tuple[type[Exception], type[GalleryError] | type[GalleryBusy] | type[GalleryUnavailable], str], ...] = (
    (psycopg.errors.LockNotAvailable, GalleryBusy, "Somebody else is changing the same rows: try again in a moment."),
    (psycopg.errors.DeadlockDetected, GalleryBusy, "Somebody else is changing the same rows: try again in a moment."),
    (psycopg.errors.SerializationFailure, GalleryBusy, "Try again in a moment."),
    (psycopg.errors.DiskFull, GalleryFull, "Make room on the database's disk; nothing of this request was stored."),
    (psycopg.errors.DataCorrupted, GalleryCorrupt, "Bring back a backup."),
    (psycopg.errors.IndexCorrupted, GalleryCorrupt, "Run REINDEX, or bring back a backup."),
    (psycopg.errors.InsufficientPrivilege, GalleryUnavailable, "Let an administrator run CREATE EXTENSION vector."),
    (psycopg.errors.FeatureNotSupported, GalleryUnavailable, "Install pgvector in the database server."),
    (psycopg_pool.PoolTimeout, GalleryUnavailable, "Is PostgreSQL running where SIGHTLINE_FACES_URL says?"),
    (psycopg.OperationalError, GalleryUnavailable, "Is PostgreSQL running where SIGHTLINE_FACES_URL says?"),
    (psycopg.Error, GalleryError, ""),
)


class PostgresStore:
    """A Store in PostgreSQL.

    url: `postgresql://user:password@host/database`. today: returns the day that expiry is compared with.
    """

    def __init__(
        self,
        url: str,
        *,
        connect_seconds: float = CONNECT_SECONDS,
        today: Callable[[], datetime.date] = lambda: datetime.datetime.now(datetime.UTC).date(),
    ) -> None:
        self._today = today
        self._purged_on: datetime.date | None = None
        with _translated():
            self._pool = psycopg_pool.ConnectionPool(
                url,
                min_size=0,
                max_size=CONNECTIONS,
                timeout=connect_seconds,
                reconnect_timeout=connect_seconds,  # otherwise the pauses between attempts grow to minutes
                kwargs={"options": f"-c lock_timeout={int(LOCK_SECONDS * 1000)}"},
                check=psycopg_pool.ConnectionPool.check_connection,  # connections from before an outage are dead
                open=True,
            )
        try:
            with self._transaction() as db:
                db.execute("SELECT pg_advisory_xact_lock(%s)", (SCHEMA_LOCK,))
                db.execute(SCHEMA)
        except Exception:
            self._pool.close()
            raise

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def galleries(self) -> Sequence[GalleryInfo]:
        with self._reading() as db:
            rows = db.execute(
                "SELECT name, encoder, (SELECT count(*) FROM sightline_faces.person WHERE gallery_id = gallery.id),"
                " (SELECT count(*) FROM sightline_faces.face WHERE gallery_id = gallery.id)"
                " FROM sightline_faces.gallery ORDER BY name"
            )
            return [GalleryInfo(*row) for row in rows]

    def drop(self, gallery: str) -> int:
        with self._transaction() as db:
            number = _gallery(db, gallery)[0]
            count = db.execute("DELETE FROM sightline_faces.face WHERE gallery_id = %s", (number,)).rowcount
            db.execute("DELETE FROM sightline_faces.gallery WHERE id = %s", (number,))
            _record(db, "drop", gallery, "", count)
        self._vacuum()
        return count

    def enrol(
        self, gallery: str, entries: Sequence[Entry], *, encoder: str, replace: bool = False, expires: str | None = None
    ) -> int:
        encodings = entry_encodings(entries)
        names = [check_person(entry.person) for entry in entries]
        day = None if expires is None else check_expiry(expires)
        with self._transaction() as db:
            number = _gallery_for(db, check_gallery(gallery), encoder)
            # sorted, so that two enrolments of the same persons cannot deadlock
            people = {name: _person(db, number, name, day) for name in sorted(set(names))}
            if replace:
                db.execute("DELETE FROM sightline_faces.face WHERE person_id = ANY(%s)", (list(people.values()),))
            added: dict[str, int] = dict.fromkeys(people, 0)
            for name, entry, encoding in zip(names, entries, encodings, strict=True):
                added[name] += _insert(db, number, people[name], entry, encoding)
            for name, count in added.items():
                _record(db, "replace" if replace else "enrol", gallery, name, count)
        if replace:
            self._vacuum()
        return sum(added.values())

    def forget(self, gallery: str, person: str) -> int:
        name = check_person(person)
        with self._transaction() as db:
            number = _gallery_or_none(db, gallery)
            row = db.execute(
                "SELECT id FROM sightline_faces.person WHERE gallery_id = %s AND name = %s FOR UPDATE", (number, name)
            ).fetchone()
            if row is None:
                raise unknown_person(gallery, name)
            count = _remove(db, row[0])
            _record(db, "forget", gallery, name, count)
        self._vacuum()
        return count

    def people(self, gallery: str) -> Sequence[Person]:
        with self._reading() as db:
            rows = db.execute(
                "SELECT name, (SELECT count(*) FROM sightline_faces.face WHERE person_id = person.id), expires"
                ' FROM sightline_faces.person WHERE gallery_id = %s ORDER BY name COLLATE "C"',
                (_gallery_or_none(db, gallery),),
            )
            return [Person(*row) for row in rows]

    def count(self, gallery: str) -> int:
        with self._reading() as db:
            where = (_gallery_or_none(db, gallery),)
            return int(_one(db.execute("SELECT count(*) FROM sightline_faces.face WHERE gallery_id = %s", where))[0])

    def nearest(self, gallery: str, encodings: Encodings, k: int, *, encoder: str) -> Sequence[Sequence[Candidate]]:
        queries = check_encodings(encodings)
        with self._reading() as db:
            if (number := _gallery_or_none(db, gallery)) is None:
                return [[] for _ in queries]
            check_encoder(gallery, _gallery(db, gallery)[1], encoder)
            return [
                [
                    Candidate(*row)
                    for row in db.execute(NEAREST, {"query": _vector(query), "gallery": number, "k": k}).fetchall()
                ]
                for query in queries
            ]

    def owner(self, gallery: str, photo_sha256: str) -> str | None:
        with self._reading() as db:
            row = db.execute(
                "SELECT person.name FROM sightline_faces.face JOIN sightline_faces.person ON person.id = person_id"
                " WHERE face.gallery_id = %s AND photo_sha256 = %s",
                (_gallery_or_none(db, gallery), photo_sha256),
            ).fetchone()
        return None if row is None else str(row[0])

    def entries(self, gallery: str) -> Iterator[Entry]:
        with self._reading() as db:
            people = db.execute(
                "SELECT id, name FROM sightline_faces.person WHERE gallery_id = %s ORDER BY id",
                (_gallery_or_none(db, gallery),),
            ).fetchall()
        for person, name in people:
            with self._reading() as db:
                rows = db.execute(
                    "SELECT encoding::real[], photo_sha256, quality, photo FROM sightline_faces.face"
                    " WHERE person_id = %s ORDER BY id",
                    (person,),
                ).fetchall()
            for encoding, sha256, quality, photo in rows:
                yield Entry(name, np.asarray(encoding, np.float32), sha256, quality, photo)

    def audit(self) -> Sequence[AuditRecord]:
        with self._reading() as db:
            rows = db.execute("SELECT at, action, gallery, person, count FROM sightline_faces.audit ORDER BY id")
            return [AuditRecord(at.astimezone(datetime.UTC).isoformat(timespec="seconds"), *rest) for at, *rest in rows]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[Any]]:
        with _translated(), self._pool.connection() as db:
            yield db

    @contextlib.contextmanager
    def _reading(self) -> Iterator[psycopg.Connection[Any]]:
        """Run a transaction in which expired persons are gone."""
        self._purge_expired()
        with self._transaction() as db:
            yield db

    def _purge_expired(self) -> None:
        """Forget expired persons, once a day."""
        today = self._today()
        if self._purged_on == today:
            return
        with self._transaction() as db:
            expired = db.execute(
                "SELECT person.id, person.name, gallery.name FROM sightline_faces.person"
                " JOIN sightline_faces.gallery ON gallery.id = gallery_id WHERE expires <> '' AND expires <= %s"
                " FOR UPDATE OF person",
                (today.isoformat(),),
            ).fetchall()
            for person, name, gallery in expired:
                _record(db, "expire", gallery, name, _remove(db, person))
        self._purged_on = today

    def _vacuum(self) -> None:
        """Free the space of deleted rows; VACUUM cannot run inside a transaction."""
        with _translated(), self._pool.connection() as db:
            db.autocommit = True
            try:
                db.execute("VACUUM sightline_faces.face, sightline_faces.person")
            finally:
                db.autocommit = False


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Translate psycopg's errors to Sightline's; the only place that does."""
    try:
        yield
    except (psycopg.Error, psycopg_pool.PoolTimeout) as exc:
        kind, hint = next((ours, hint) for theirs, ours, hint in ERRORS if isinstance(exc, theirs))
        raise kind(f"the gallery's database: {str(exc).strip()}", hint=hint) from exc


def _one(cursor: psycopg.Cursor[Any]) -> Any:
    row = cursor.fetchone()
    if row is None:
        raise GalleryError("The database returned no row where one was expected.")
    return row


def _gallery(db: psycopg.Connection[Any], gallery: str) -> tuple[int, str]:
    row = db.execute(
        "SELECT id, encoder FROM sightline_faces.gallery WHERE name = %s", (check_gallery(gallery),)
    ).fetchone()
    if row is None:
        raise unknown_gallery(gallery)
    return int(row[0]), str(row[1])


def _gallery_or_none(db: psycopg.Connection[Any], gallery: str) -> int | None:
    """Return the gallery's id; None for the default gallery before its first enrolment."""
    row = db.execute("SELECT id FROM sightline_faces.gallery WHERE name = %s", (check_gallery(gallery),)).fetchone()
    if row is None and gallery != DEFAULT_GALLERY:
        raise unknown_gallery(gallery)
    return None if row is None else int(row[0])


def _gallery_for(db: psycopg.Connection[Any], gallery: str, encoder: str) -> int:
    db.execute(
        "INSERT INTO sightline_faces.gallery (name, encoder) VALUES (%s, %s) ON CONFLICT DO NOTHING", (gallery, encoder)
    )
    number, theirs = _gallery(db, gallery)
    if theirs != encoder:
        held = db.execute("SELECT 1 FROM sightline_faces.face WHERE gallery_id = %s LIMIT 1", (number,)).fetchone()
        if held is not None:
            check_encoder(gallery, theirs, encoder)
        db.execute("UPDATE sightline_faces.gallery SET encoder = %s WHERE id = %s", (encoder, number))
    return number


def _person(db: psycopg.Connection[Any], gallery: int, name: str, expires: str | None) -> int:
    # the update, even if it changes nothing, makes RETURNING return an existing row, and locks it
    change = sql.SQL("expires = person.expires" if expires is None else "expires = excluded.expires")
    query = sql.SQL(
        "INSERT INTO sightline_faces.person (gallery_id, name, expires) VALUES (%s, %s, %s)"
        " ON CONFLICT (gallery_id, name) DO UPDATE SET {} RETURNING id"
    ).format(change)
    return int(_one(db.execute(query, (gallery, name, expires or "")))[0])


def _insert(db: psycopg.Connection[Any], gallery: int, person: int, entry: Entry, encoding: Encodings) -> int:
    return db.execute(
        "INSERT INTO sightline_faces.face (gallery_id, person_id, encoding, photo_sha256, quality, photo)"
        " VALUES (%s, %s, %s::vector, %s, %s, %s) ON CONFLICT DO NOTHING",
        (gallery, person, _vector(encoding), entry.photo_sha256, Jsonb(entry.quality), entry.photo),
    ).rowcount


def _remove(db: psycopg.Connection[Any], person: int) -> int:
    """Remove a person and their faces. Returns the number of faces."""
    count = db.execute("DELETE FROM sightline_faces.face WHERE person_id = %s", (person,)).rowcount
    db.execute("DELETE FROM sightline_faces.person WHERE id = %s", (person,))
    return count


def _record(db: psycopg.Connection[Any], action: str, gallery: str, person: str, count: int) -> None:
    db.execute(
        "INSERT INTO sightline_faces.audit (action, gallery, person, count) VALUES (%s, %s, %s, %s)",
        (action, gallery, audit_digest(gallery, person) if person else "", count),
    )


def _vector(encoding: Encodings) -> str:
    """Write an encoding in pgvector's text form; nine digits represent a float32 exactly."""
    return "[" + ",".join(f"{number:.9g}" for number in encoding.tolist()) + "]"
