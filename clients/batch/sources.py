"""Sources of pictures: a folder, a glob, a list, a table, an archive, a bucket. Add a kind of source here.

A source lists its inputs in an order that does not change, and reads any of them later by its path and locator. Paths
are Python's file system strings: bytes that are not UTF-8 are surrogates, as `os.fsdecode` makes them.
"""

import csv
import glob
import os
import stat
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, Self

from sightline.errors import BadImage, MissingPackage, UsageError, install_hint

LARGEST_FILE = 200_000_000  # bytes; a larger file is refused unread, so that memory stays flat
PATH_COLUMNS = ("path", "file", "filename", "filepath", "image", "image_path")
TRUTH_COLUMN = "truth"
LISTS = (".txt", ".lst", ".list")
TABLES = (".csv", ".tsv", ".parquet")
# What zipfile raises: RuntimeError for an encrypted member, NotImplementedError for an unknown compression.
BROKEN_ZIP = (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


@dataclass(frozen=True, slots=True)
class Input:
    """One picture to score. locator: for its source, where the path is not enough; truth: "" where it is unknown."""

    path: str
    locator: str = ""
    truth: str = ""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table that hold the path and the truth; None: the first with a well-known name."""

    path: str | None = None
    truth: str | None = None


class Source(Protocol):
    """Lists pictures and reads them. `read` may be called from several threads."""

    def inputs(self) -> Iterator[Input]:
        """Yield every picture, always in the same order."""

    def read(self, path: str, locator: str) -> bytes:
        """Read one picture's bytes. Raises BadImage."""

    def close(self) -> None:
        """Close the files that are open."""


def open_source(spec: str, columns: Columns, without: frozenset[str] = frozenset()) -> Source:
    """Open the source that `spec` names. without: real paths that are never inputs (the output, the journal).

    Raises UsageError where nothing is there.
    """
    if "://" in spec:
        return Bucket(spec)
    if os.path.isdir(spec):
        return Folder(spec, without)
    if os.path.isfile(spec):
        return _open_file(spec, columns)
    if glob.has_magic(spec):
        return Files(lambda: iter(sorted(filter(os.path.isfile, glob.iglob(spec, recursive=True)))))
    raise UsageError(
        f"there is no {spec!r}",
        hint="Give a folder, a glob in quotes, a .txt of paths, a .csv or .parquet with a path column, a .zip or .tar, "
        "or an address such as s3://bucket/prefix.",
    )


def _open_file(spec: str, columns: Columns) -> Source:
    name = spec.lower()
    if name.endswith(LISTS):
        return Listed(lambda: _lines(spec), os.path.dirname(spec))
    if name.endswith(TABLES):
        return Listed(lambda: _table(spec, columns), os.path.dirname(spec))
    if name.endswith(".zip"):
        return Zip(spec)
    if name.endswith(TARS):
        return Tar(spec)
    return Files(lambda: iter([spec]))


def read_whole(path: str) -> bytes:
    """Read a regular file. Raises BadImage."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # not to wait for the other end of a pipe
        with open(fd, "rb", buffering=0) as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise unreadable(f"{path!r} is not a regular file")
            _refuse_huge(path, status.st_size)
            return file.readall()
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise unreadable(f"{path!r} cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc


def unreadable(detail: str) -> BadImage:
    """The error of a picture whose bytes cannot be read."""
    return BadImage(detail, code="unreadable_file")


def _refuse_huge(path: str, size: int) -> None:
    if size > LARGEST_FILE:
        detail = f"{path!r} has {size:,} bytes; files over {LARGEST_FILE:,} are not read"
        raise BadImage(detail, code="image_too_large")


@dataclass(frozen=True, slots=True)
class Files:
    """Paths of files."""

    paths: Callable[[], Iterator[str]]

    def inputs(self) -> Iterator[Input]:
        return (Input(path) for path in self.paths())

    def read(self, path: str, locator: str) -> bytes:  # noqa: ARG002
        return read_whole(path)

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True)
class Folder:
    """Every file under a folder but hidden ones, folder by folder in the order of their names."""

    root: str
    without: frozenset[str]

    def inputs(self) -> Iterator[Input]:
        return (Input(path) for path in self._walk(self.root))

    def read(self, path: str, locator: str) -> bytes:  # noqa: ARG002
        return read_whole(path)

    def close(self) -> None:
        """Nothing is open."""

    def _walk(self, folder: str) -> Iterator[str]:
        files, folders = _children(folder)
        names = {os.path.basename(path) for path in self.without}  # resolving every path would take longer than listing
        for name in files:
            path = os.path.join(folder, name)
            if name not in names or os.path.realpath(path) not in self.without:
                yield path
        for name in folders:
            yield from self._walk(os.path.join(folder, name))


def _children(folder: str) -> tuple[list[str], list[str]]:
    """(files, folders) of a folder, sorted by name. A broken link is a file, so that it becomes a failed row."""
    files, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path)):
                    files.append(entry.name)
    except OSError as exc:
        raise UsageError(f"folder {folder!r} cannot be listed: {exc.strerror}") from exc
    return sorted(files), sorted(folders)


@dataclass(frozen=True, slots=True)
class Listed:
    """Paths that a file lists; a relative one is looked up in the current folder, then in that of the list."""

    listing: Callable[[], Iterator[Input]]
    folder: str

    def inputs(self) -> Iterator[Input]:
        return self.listing()

    def read(self, path: str, locator: str) -> bytes:  # noqa: ARG002
        beside = os.path.join(self.folder, path)
        try:
            return read_whole(path)
        except BadImage:
            if "\0" in path or not os.path.exists(beside):
                raise
            return read_whole(beside)

    def close(self) -> None:
        """Nothing is open."""


def _lines(spec: str) -> Iterator[Input]:
    """One path a line, or separated by NUL, as `find -print0` writes them. Empty lines are skipped."""
    with open(spec, "rb") as file:
        separator = b"\0" if b"\0" in file.read(65536) else b"\n"
        file.seek(0)
        for line in _split(file, separator):
            path = line if separator == b"\0" else line.rstrip(b"\r")
            if path:
                yield Input(os.fsdecode(path))


def _split(file: IO[bytes], separator: bytes) -> Iterator[bytes]:
    rest = b""
    while block := file.read(1 << 16):
        *whole, rest = (rest + block).split(separator)
        yield from whole
    yield rest


def _table(spec: str, columns: Columns) -> Iterator[Input]:
    read = _parquet_rows if spec.lower().endswith(".parquet") else _csv_rows
    for row in read(spec, columns):
        yield Input(row[0], truth=row[1])


def _csv_rows(spec: str, columns: Columns) -> Iterator[tuple[str, str]]:
    with open(spec, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        rows = csv.reader(file, delimiter="\t" if spec.lower().endswith(".tsv") else ",")
        path, truth = _found_columns(spec, next(rows, []), columns)
        for row in rows:
            if row:
                yield _cell(row, path), _cell(row, truth)


def _cell(row: list[str], index: int | None) -> str:
    return row[index] if index is not None and index < len(row) else ""


def _parquet_rows(spec: str, columns: Columns) -> Iterator[tuple[str, str]]:
    parquet = import_extra("pyarrow.parquet", "parquet")
    with parquet.ParquetFile(spec) as file:
        names = file.schema_arrow.names
        path, truth = _found_columns(spec, names, columns)
        wanted = [names[path], *([names[truth]] if truth is not None else [])]
        for batch in file.iter_batches(batch_size=4096, columns=wanted):
            paths = batch.column(names[path]).to_pylist()
            truths = [""] * len(paths) if truth is None else batch.column(names[truth]).to_pylist()
            for one, other in zip(paths, truths, strict=True):
                yield str(one), "" if other is None else str(other)


def _found_columns(spec: str, names: list[str], columns: Columns) -> tuple[int, int | None]:
    known = [columns.path] if columns.path else list(PATH_COLUMNS)
    path = next((names.index(name) for name in known if name in names), None)
    if path is None:
        raise UsageError(
            f"{spec} has no column {' or '.join(known)}; its columns are {', '.join(names) or 'none'}",
            hint="Name it with --path-column.",
        )
    if columns.truth and columns.truth not in names:
        raise UsageError(f"{spec} has no column {columns.truth}; its columns are {', '.join(names)}")
    truth = columns.truth or TRUTH_COLUMN
    return path, names.index(truth) if truth in names else None


class Zip:
    """The files of a zip; a path is the archive's and the member's name. locator: the member's number.

    zipfile keeps the archive's directory in memory, 0.6 KB for each member.
    """

    def __init__(self, spec: str) -> None:
        self._spec = spec
        try:
            self._zip = zipfile.ZipFile(spec)
        except (OSError, zipfile.BadZipFile) as exc:
            raise UsageError(f"{spec!r} is not a zip that can be read: {exc}") from exc
        self._members = self._zip.infolist()

    def inputs(self) -> Iterator[Input]:
        for number, member in enumerate(self._members):
            if not member.is_dir() and not _is_hidden(member.filename):
                yield Input(f"{self._spec}/{member.filename}", str(number))

    def read(self, path: str, locator: str) -> bytes:
        try:
            member = self._members[int(locator)]
            _refuse_huge(path, member.file_size)
            return self._zip.read(member)
        except BROKEN_ZIP as exc:
            raise unreadable(f"{path!r} cannot be read: {exc}") from exc

    def close(self) -> None:
        self._zip.close()


class Tar:
    """The files of a tar; a compressed one is unpacked into one temporary file first, so that any member is one seek.

    locator: the offset of the member's bytes and their number.
    """

    def __init__(self, spec: str) -> None:
        self._spec = spec
        self._file = _uncompressed(spec)
        try:
            with tarfile.open(fileobj=self._file, mode="r:"):
                pass
        except (OSError, tarfile.TarError) as exc:
            self._file.close()
            raise UsageError(f"{spec!r} is not a tar that can be read: {exc}") from exc

    def inputs(self) -> Iterator[Input]:
        self._file.seek(0)
        with tarfile.open(fileobj=self._file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # tarfile remembers every member; memory must stay flat
                if member.isfile() and not _is_hidden(member.name):
                    yield Input(f"{self._spec}/{member.name}", f"{member.offset_data}:{member.size}")

    def read(self, path: str, locator: str) -> bytes:
        offset, size = (int(part) for part in locator.split(":"))
        _refuse_huge(path, size)
        data = os.pread(self._file.fileno(), size, offset)
        if len(data) != size:
            raise unreadable(f"{path!r} is cut off: {len(data)} of {size} bytes are there")
        return data

    def close(self) -> None:
        self._file.close()


def _uncompressed(spec: str) -> IO[bytes]:
    if spec.lower().endswith(".tar"):
        return open(spec, "rb")
    import bz2
    import gzip
    import lzma

    openers: dict[str, Callable[[str], Any]] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    kind = next(kind for kind in openers if spec.lower().endswith((kind, f"t{kind[:2]}", f"tb{kind[1:]}")))
    spool = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        with openers[kind](spec) as packed:
            while block := packed.read(1 << 20):
                spool.write(block)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as exc:
        spool.close()
        raise UsageError(f"{spec!r} cannot be unpacked: {exc}") from exc
    return spool


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


class Bucket:
    """Every file under an address that fsspec understands: s3://, gs://, https://, memory://, ..."""

    def __init__(self, spec: str) -> None:
        core = import_extra("fsspec.core", "s3")
        self._protocol = spec.split("://", 1)[0]
        try:
            self._fs, self._root = core.url_to_fs(spec)
        except (ImportError, ValueError) as exc:
            raise UsageError(f"{spec!r} cannot be opened: {exc}", hint=install_hint("s3")) from exc

    def inputs(self) -> Iterator[Input]:
        for path in self._fs.find(self._root):
            if not os.path.basename(path).startswith("."):
                yield Input(f"{self._protocol}://{path.lstrip('/')}", path)

    def read(self, path: str, locator: str) -> bytes:
        try:
            data: bytes = self._fs.cat_file(locator)
        except OSError as exc:
            raise unreadable(f"{path!r} cannot be read: {exc}") from exc
        return data

    def close(self) -> None:
        """fsspec manages its connections itself."""


def import_extra(module: str, extra: str) -> Any:
    """Import a module of an extra. Raises MissingPackage, which names the extra."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as exc:
        package = module.partition(".")[0]
        raise MissingPackage(f"the package {package} is not installed", hint=install_hint(extra)) from exc


def shown_path(path: str) -> str:
    """Escape a path for formats that hold UTF-8 only: any other byte becomes \\xNN."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class PictureReader:
    """Reads pictures by the paths in rows of results: a file, a member of an archive, an address. Threads may share it.

    An archive is opened and listed once, at the first of its members.
    """

    def __init__(self) -> None:
        self._archives: dict[str, tuple[Source, dict[str, Input]]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for archive, _members in self._archives.values():
            archive.close()

    def read(self, path: str) -> bytes:
        """Read one picture's bytes. Raises BadImage, UsageError."""
        if "://" in path:
            return Bucket(path).read(path, path.split("://", 1)[1])
        for parent in Path(path).parents:
            if parent.name.lower().endswith((".zip", *TARS)) and parent.is_file():
                return self._read_member(str(parent), os.path.normpath(path))
        return read_whole(path)

    def _read_member(self, spec: str, path: str) -> bytes:
        with self._lock:
            if spec not in self._archives:
                archive = _open_file(spec, Columns())
                members = {os.path.normpath(shown_path(one.path)): one for one in archive.inputs()}
                self._archives[spec] = archive, members
            archive, members = self._archives[spec]
        if path not in members:
            raise unreadable(f"{path!r} cannot be read: it is not in {spec!r}")
        return archive.read(members[path].path, members[path].locator)
