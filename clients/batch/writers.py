"""Rows to a file and back: one table of formats, chosen by the file's ending. Add an output format here.

Paths are written by `shown_path`. A file appears whole or not at all: it is written under another name, flushed to the
disk and renamed.
"""

import codecs
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
from serving.contract.durable import flush
from serving.contract.text_files import guarded, is_marked, unguarded

COLUMNS = tuple(field.name for field in fields(Row))
ADDED = ("label_id",)  # columns that the files of older versions lack
NUMBERS: dict[str, type[int] | type[float]] = {"score": float, "ms": float, "version": int}
PARQUET_ROWS = 8192  # of one row group, and of the memory that writing takes
SQL_TYPES = {"score": "REAL", "ms": "REAL", "version": "INTEGER"}


SQLITE = b"SQLite format 3\0"
EDGE_BYTES = 65536  # at the start and at the end of a file, by which results are recognised
JOURNALS = (".journal", ".journal-wal", ".journal-shm")


@dataclass(frozen=True, slots=True)
class Format:
    """A format. write: rows into a new file; read: the rows of a file, in its order.

    is_own: tells results by the first and the last EDGE_BYTES of a file.
    """

    write: Callable[[str, Iterable[Row]], None]
    read: Callable[[str], Iterator[Row]]
    is_own: Callable[[bytes, bytes], bool]


def format_of(path: str) -> Format:
    """Look up the format of a file's ending. Raises UsageError."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"{path} has the unknown ending {suffix!r}.", hint=f"Use one of {', '.join(FORMATS)}.")
    return FORMATS[suffix]


def check_output(path: str, *, excel: bool = False) -> None:
    """Check now what would fail at the end. Raises UsageError, MissingPackage."""
    format_of(path)
    if excel and Path(path).suffix.lower() != ".csv":
        raise UsageError(f"--excel writes a .csv, and {path} is none.", hint="Name a .csv with --out.")
    if Path(path).suffix.lower() == ".parquet":
        import_extra("pyarrow.parquet", "parquet")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UsageError(f"There is no folder {folder}.", hint="Create it first.")
    if os.path.isdir(path):
        raise UsageError(f"{path} is a folder.", hint="Name a file with --out.")


def is_results(path: str) -> bool:
    """Tell a file that `sightline score` wrote, or its journal, from any other, by its name and its content."""
    name = path.lower()
    for ending in JOURNALS:
        if name.endswith(ending):
            start, _ = _edges(path[: len(path) - len(ending)] + ".journal")
            return start.startswith(SQLITE)
    kind = FORMATS.get(os.path.splitext(name)[1])
    return kind is not None and kind.is_own(*_edges(path))


def _edges(path: str) -> tuple[bytes, bytes]:
    """The first and the last EDGE_BYTES of a file; none of one that cannot be read."""
    try:
        if not os.path.isfile(path):
            return b"", b""
        with open(path, "rb") as file:
            start = file.read(EDGE_BYTES)
            file.seek(max(0, os.path.getsize(path) - EDGE_BYTES))
            return start, file.read(EDGE_BYTES)
    except OSError:
        return b"", b""


def write_rows(path: str, rows: Iterable[Row], *, excel: bool = False) -> None:
    """Write all rows, then rename: `path` is the old file or the whole new one. Raises OutputFailed.

    excel: write a CSV that Excel opens as UTF-8, and in which no cell is a formula.
    """
    folder, name = os.path.split(os.path.abspath(path))
    partial = os.path.join(folder, f".{name}.partial")
    try:
        _remove(partial)
        (_write_excel if excel else format_of(path).write)(partial, rows)
        flush(partial)
        os.replace(partial, path)
        flush(folder)
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
        raise UsageError(f"There is no file {path}.", hint="Name a file that `sightline score` wrote.")
    try:
        yield from format_of(path).read(path)
    except (KeyError, ValueError, TypeError, sqlite3.DatabaseError) as exc:
        raise UsageError(f"{path} is not a file that `sightline score` wrote: {type(exc).__name__}: {exc}") from exc


def _remove(path: str) -> None:
    if os.path.exists(path):
        os.remove(path)


def _write_csv(path: str, rows: Iterable[Row]) -> None:
    _write_cells(path, "utf-8", map(_flat, rows))


def _write_excel(path: str, rows: Iterable[Row]) -> None:
    """Without a byte order mark, Excel takes a CSV for the encoding of the system, and Korean paths are garbled."""
    cells = ([guarded(cell) if isinstance(cell, str) else cell for cell in _flat(row)] for row in rows)
    _write_cells(path, "utf-8-sig", cells)


def _write_cells(path: str, encoding: str, cells: Iterable[list[Any]]) -> None:
    with open(path, "w", newline="", encoding=encoding) as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(cells)


def _read_csv(path: str) -> Iterator[Row]:
    clean = unguarded if is_marked(Path(path)) else str
    with open(path, newline="", encoding="utf-8-sig") as file:
        for cells in csv.DictReader(file):
            yield _from_flat({name: clean(cell) for name, cell in _with_added(cells).items()})


def _is_own_csv(start: bytes, end: bytes) -> bool:  # noqa: ARG001
    head = start.removeprefix(codecs.BOM_UTF8).partition(b"\n")[0]
    return head.startswith(b"path,status,label,") and b",sha256,error_code,error,truth," in head


def _write_jsonl(path: str, rows: Iterable[Row]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            entry = asdict(row) | {"top": _top_dicts(row)}
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def _read_jsonl(path: str) -> Iterator[Row]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield _from_dict(json.loads(line))


def _is_own_jsonl(start: bytes, end: bytes) -> bool:  # noqa: ARG001
    line = start.partition(b"\n")[0]
    return line.startswith(b'{"path": ') and all(key in line for key in (b', "status": ', b', "label": ', b', "top": '))


def _write_parquet(path: str, rows: Iterable[Row]) -> None:
    arrow, parquet = import_extra("pyarrow", "parquet"), import_extra("pyarrow.parquet", "parquet")
    one = arrow.struct([("label", arrow.string()), ("score", arrow.float64()), ("id", arrow.string())])
    kinds = {"score": arrow.float64(), "ms": arrow.float64(), "version": arrow.int64(), "top": arrow.list_(one)}
    schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in COLUMNS])
    remaining = iter(rows)
    with open(path, "wb") as file, parquet.ParquetWriter(file, schema) as writer:  # Arrow's own names are UTF-8
        while group := list(islice(remaining, PARQUET_ROWS)):
            entries = [asdict(row) | {"top": _top_dicts(row)} for row in group]
            writer.write_table(arrow.Table.from_pylist(entries, schema=schema))


def _read_parquet(path: str) -> Iterator[Row]:
    parquet = import_extra("pyarrow.parquet", "parquet")
    with open(path, "rb") as data, parquet.ParquetFile(data) as file:
        for batch in file.iter_batches(batch_size=PARQUET_ROWS):
            yield from map(_from_dict, batch.to_pylist())


def _is_own_parquet(start: bytes, end: bytes) -> bool:
    """The names of the columns stand in the file's last bytes."""
    return start.startswith(b"PAR1") and all(
        name.encode() in end for name in ("sha256", "error_code", "previous_label")
    )


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


def _is_own_sqlite(start: bytes, end: bytes) -> bool:  # noqa: ARG001
    """The statement that made the table stands in the first page."""
    return start.startswith(SQLITE) and b"CREATE TABLE results (path TEXT, status TEXT, label TEXT" in start


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
    ".csv": Format(_write_csv, _read_csv, _is_own_csv),
    ".jsonl": Format(_write_jsonl, _read_jsonl, _is_own_jsonl),
    ".parquet": Format(_write_parquet, _read_parquet, _is_own_parquet),
    ".sqlite": Format(_write_sqlite, _read_sqlite, _is_own_sqlite),
    ".db": Format(_write_sqlite, _read_sqlite, _is_own_sqlite),
}
