"""Rows to a file and back: one table of formats, chosen by the file's ending. Add an output format here.

A file appears whole or not at all: it is written under another name, flushed to the disk and renamed.
"""

import csv
import errno
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

from sightline.errors import UsageError

from clients.batch.errors import OutputFailed
from clients.batch.rows import Row, Top
from clients.batch.sources import import_extra

COLUMNS = tuple(field.name for field in fields(Row))
ADDED = ("label_id",)  # columns that the files of older versions lack
NUMBERS: dict[str, type[int] | type[float]] = {"score": float, "ms": float, "version": int}
PARQUET_ROWS = 8192  # of one row group, and of the memory that writing takes
SQL_TYPES = {"score": "REAL", "ms": "REAL", "version": "INTEGER"}


@dataclass(frozen=True, slots=True)
class Format:
    """A format. write: rows into a new file; read: the rows of a file, in its order."""

    write: Callable[[str, Iterable[Row]], None]
    read: Callable[[str], Iterator[Row]]


def format_of(path: str) -> Format:
    """Look up the format of a file's ending. Raises UsageError."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"{path} has the unknown ending {suffix!r}", hint=f"Use one of {', '.join(FORMATS)}.")
    return FORMATS[suffix]


def check_output(path: str) -> None:
    """Check now what would fail at the end. Raises UsageError, MissingPackage."""
    format_of(path)
    if Path(path).suffix.lower() == ".parquet":
        import_extra("pyarrow.parquet", "parquet")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UsageError(f"there is no folder {folder}", hint="Create it first.")
    if os.path.isdir(path):
        raise UsageError(f"{path} is a folder", hint="Name a file with --out.")


def write_rows(path: str, rows: Iterable[Row]) -> None:
    """Write all rows, then rename: `path` is the old file or the whole new one. Raises OutputFailed."""
    folder, name = os.path.split(os.path.abspath(path))
    partial = os.path.join(folder, f".{name}.partial")
    try:
        _remove(partial)
        format_of(path).write(partial, rows)
        _sync(partial)
        os.replace(partial, path)
        _sync(folder)
    except (OSError, sqlite3.OperationalError) as exc:
        _remove(partial)
        full = isinstance(exc, sqlite3.OperationalError) or exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise OutputFailed(
            f"{path} cannot be written: {exc}",
            hint=f"Every row is in the journal. {'Make room' if full else 'Correct that'}, then run the command again.",
        ) from exc


def read_rows(path: str) -> Iterator[Row]:
    """Read the rows of a results file. Raises UsageError where it is none."""
    if not os.path.isfile(path):
        raise UsageError(f"there is no file {path}", hint="Name a file that `sightline score` wrote.")
    try:
        yield from format_of(path).read(path)
    except (KeyError, ValueError, TypeError, sqlite3.DatabaseError) as exc:
        raise UsageError(f"{path} is not a file that `sightline score` wrote: {type(exc).__name__}: {exc}") from exc


def _remove(path: str) -> None:
    if os.path.exists(path):
        os.remove(path)


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_csv(path: str, rows: Iterable[Row]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(_flat(row) for row in rows)


def _read_csv(path: str) -> Iterator[Row]:
    with open(path, newline="", encoding="utf-8") as file:
        for cells in csv.DictReader(file):
            yield _from_flat(_with_added(cells))


def _write_jsonl(path: str, rows: Iterable[Row]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            entry = asdict(row) | {"top": _top_dicts(row)}
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def _read_jsonl(path: str) -> Iterator[Row]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield _from_dict(json.loads(line))


def _write_parquet(path: str, rows: Iterable[Row]) -> None:
    arrow, parquet = import_extra("pyarrow", "parquet"), import_extra("pyarrow.parquet", "parquet")
    one = arrow.struct([("label", arrow.string()), ("score", arrow.float64()), ("id", arrow.string())])
    kinds = {"score": arrow.float64(), "ms": arrow.float64(), "version": arrow.int64(), "top": arrow.list_(one)}
    schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in COLUMNS])
    remaining = iter(rows)
    with parquet.ParquetWriter(path, schema) as writer:
        while group := list(islice(remaining, PARQUET_ROWS)):
            entries = [asdict(row) | {"top": _top_dicts(row)} for row in group]
            writer.write_table(arrow.Table.from_pylist(entries, schema=schema))


def _read_parquet(path: str) -> Iterator[Row]:
    parquet = import_extra("pyarrow.parquet", "parquet")
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=PARQUET_ROWS):
            yield from map(_from_dict, batch.to_pylist())


def _write_sqlite(path: str, rows: Iterable[Row]) -> None:
    columns = ", ".join(f"{name} {SQL_TYPES.get(name, 'TEXT')}" for name in COLUMNS)
    db = sqlite3.connect(path)
    try:
        with db:
            db.execute("PRAGMA journal_mode=OFF")
            db.execute(f"CREATE TABLE results ({columns})")
            db.executemany(f"INSERT INTO results VALUES ({', '.join('?' * len(COLUMNS))})", map(_flat, rows))
    finally:
        db.close()


def _read_sqlite(path: str) -> Iterator[Row]:
    db = sqlite3.connect(path)
    try:
        query = db.execute("SELECT * FROM results ORDER BY rowid")
        names = [column[0] for column in query.description]
        for cells in query:
            row = {name: "" if cell is None else cell for name, cell in zip(names, cells, strict=True)}
            yield _from_flat(_with_added(row))
    finally:
        db.close()


def _flat(row: Row) -> list[Any]:
    """The cells of a row for formats without lists: `top` is JSON."""
    return [json.dumps(row.top, ensure_ascii=False) if name == "top" else getattr(row, name) for name in COLUMNS]


def _from_flat(cells: dict[str, Any]) -> Row:
    values = dict(cells)
    for name, kind in NUMBERS.items():
        values[name] = None if cells[name] == "" else kind(cells[name])
    return Row(**values | {"top": tuple(_top_entry(*entry) for entry in json.loads(cells["top"]))})


def _top_dicts(row: Row) -> list[dict[str, Any]]:
    return [dict(zip(("label", "score", "id"), entry, strict=False)) for entry in row.top]


def _from_dict(entry: dict[str, Any]) -> Row:
    top = tuple(_top_entry(label["label"], label["score"], label.get("id")) for label in entry["top"])
    return Row(**_with_added(entry) | {"top": top})


def _top_entry(label: str, score: float, class_id: str | None = None) -> Top:
    return (label, score, class_id) if class_id else (label, score)


def _with_added(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a row, in a file of this version or an older one. Raises KeyError."""
    return {name: cells.get(name, "") if name in ADDED else cells[name] for name in COLUMNS}


FORMATS: dict[str, Format] = {
    ".csv": Format(_write_csv, _read_csv),
    ".jsonl": Format(_write_jsonl, _read_jsonl),
    ".parquet": Format(_write_parquet, _read_parquet),
    ".sqlite": Format(_write_sqlite, _read_sqlite),
    ".db": Format(_write_sqlite, _read_sqlite),
}
