"""Sources of pictures: a folder, a glob, a list, a table, an archive, a bucket. Add a kind of source here.

A source lists its inputs in an order that does not change, and reads any of them later by its path and locator. Paths
are Python's file system strings: bytes that are not UTF-8 are surrogates, as `os.fsdecode` makes them. Folders, globs,
archives and buckets leave out hidden files and those of the operating system; lists and tables name what counts.
"""

import contextlib
import csv
import glob
import os
import stat
import struct
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol, Self

from sightline.errors import BadImage, MissingPackage, UsageError, install_hint

from serving.contract.headers import START_BYTES
from serving.contract.names import existing_path, is_utf8, nfc, shown_path
from serving.contract.picture_files import (
    NOT_PICTURES,
    SPECIAL,
    LeftOut,
    is_picture,
    is_picture_file,
    name_reason,
    walk,
)
from serving.contract.text_files import marked_encoding, unguarded

LARGEST_FILE = 200_000_000  # bytes; a larger file is refused unread, so that memory stays flat
PATH_COLUMNS = ("path", "file", "filename", "filepath", "image", "image_path")
TRUTH_COLUMN = "truth"
LISTS = (".txt", ".lst", ".list")
TABLES = (".csv", ".tsv", ".parquet")
# What zipfile raises: RuntimeError for an encrypted member, NotImplementedError for an unknown compression.
BROKEN_ZIP = (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)
RESULTS = "results of score"
LINKS = "links inside the tar, whose files may be elsewhere in it"
UTF8_FLAG = 0x800  # of a zip's member: APPNOTE.TXT, 4.4.4
UNICODE_PATH = 0x7075  # its extra field with the name in UTF-8: APPNOTE.TXT, 4.6.9
WINDOWS = (0, 10, 14)  # the systems of a zip's member (FAT, NTFS, VFAT) whose names may hold \\ for /
END_OF_TAR = bytes(tarfile.BLOCKSIZE)  # POSIX ends a tar with two blocks of zeros
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


def _none(path: str) -> bool:  # noqa: ARG001
    return False


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """The settings of a source.

    only_pictures: leave out every file that is no picture. archive_encoding: of names in an archive that are not marked
    as UTF-8; None: UTF-8. is_result: tells files that `sightline score` itself wrote, which are never inputs of a
    folder or a glob.
    """

    columns: Columns = field(default_factory=Columns)
    only_pictures: bool = False
    archive_encoding: str | None = None
    is_result: Callable[[str], bool] = _none

    def reason(self, name: str, first_bytes: Callable[[], bytes]) -> str | None:
        """Tell why a file is left out; None where it is an input. name: relative to the source, with /."""
        if reason := name_reason(name):
            return reason
        return NOT_PICTURES if self.only_pictures and not is_picture(name, first_bytes) else None


class Source(Protocol):
    """Lists pictures and reads them. `read` may be called from several threads.

    left_out: what the last listing left out, and why.
    """

    left_out: LeftOut

    def inputs(self) -> Iterator[Input]:
        """Yield every picture, always in the same order."""

    def read(self, path: str, locator: str) -> bytes:
        """Read one picture's bytes. Raises BadImage."""

    def close(self) -> None:
        """Close the files that are open."""


def open_source(spec: str, options: SourceOptions = SourceOptions()) -> Source:
    """Open the source that `spec` names. Raises UsageError where nothing is there."""
    if options.archive_encoding is not None:
        _check_encoding(options.archive_encoding)
    if "://" in spec:
        return Bucket(spec, options)
    if os.path.isdir(spec):
        return Folder(spec, options)
    if os.path.isfile(spec):
        return _open_file(spec, options)
    if glob.has_magic(spec):
        return Glob(spec, options)
    raise UsageError(
        f"There is no {spec!r}.",
        hint="Give a folder, a glob in quotes, a .txt of paths, a .csv or .parquet with a path column, a .zip or .tar, "
        "or an address such as s3://bucket/prefix.",
    )


def _check_encoding(name: str) -> None:
    try:
        with contextlib.suppress(UnicodeError):
            b"a".decode(name)  # codecs.lookup finds base64, too
    except LookupError as exc:
        raise UsageError(
            f"There is no encoding {name!r}.",
            hint="Korean Windows writes cp949, Japanese cp932, Chinese gb18030 or big5.",
        ) from exc


def _open_file(spec: str, options: SourceOptions) -> Source:
    name = spec.lower()
    if name.endswith(LISTS):
        return Listed(lambda: _lines(spec), os.path.dirname(spec), options)
    if name.endswith(TABLES):
        return Listed(lambda: _table(spec, options.columns), os.path.dirname(spec), options)
    if name.endswith(".zip"):
        return Zip(spec, options)
    if name.endswith(TARS):
        return Tar(spec, options)
    return SingleFile(spec)


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


class OnDisk:
    """Files whose paths are enough to read them."""

    def __init__(self) -> None:
        self.left_out = LeftOut()

    def read(self, path: str, locator: str) -> bytes:  # noqa: ARG002
        return read_whole(path)

    def close(self) -> None:
        """Nothing is open."""


class SingleFile(OnDisk):
    """One file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def inputs(self) -> Iterator[Input]:
        yield Input(self._path)


class Glob(OnDisk):
    """The files that a pattern matches, sorted. The name of a folder that the pattern spells out does not matter."""

    def __init__(self, pattern: str, options: SourceOptions) -> None:
        super().__init__()
        self._pattern = pattern
        self._options = options

    def inputs(self) -> Iterator[Input]:
        self.left_out.clear()
        found = (path for path in sorted(glob.iglob(self._pattern, recursive=True)) if not os.path.isdir(path))
        return _kept(found, self._options, self.left_out)


class Folder(OnDisk):
    """Every file under a folder, as `walk` finds them."""

    def __init__(self, root: str, options: SourceOptions) -> None:
        super().__init__()
        self._root = root
        self._options = options

    def inputs(self) -> Iterator[Input]:
        self.left_out.clear()
        try:
            yield from _kept(walk(self._root, self.left_out), self._options, self.left_out)
        except OSError as exc:
            raise UsageError(f"Folder {exc.filename!r} cannot be listed: {exc.strerror}.") from exc


def _kept(paths: Iterable[str], options: SourceOptions, left_out: LeftOut) -> Iterator[Input]:
    for path in paths:
        reason = name_reason(os.path.basename(path))
        if reason is None and options.is_result(path):
            reason = RESULTS
        if reason is None and options.only_pictures and not is_picture_file(path):
            reason = NOT_PICTURES
        if reason is None:
            yield Input(path)
        else:
            left_out.add(reason, path)


class Listed(OnDisk):
    """Paths that a file lists; a relative one is looked up in the current folder, then in that of the list."""

    def __init__(self, listing: Callable[[], Iterator[Input]], folder: str, options: SourceOptions) -> None:
        super().__init__()
        self._listing = listing
        self._folder = folder
        self._options = options

    def inputs(self) -> Iterator[Input]:
        self.left_out.clear()
        for one in self._listing():
            if self._options.only_pictures and not is_picture(one.path, partial(self._first_bytes, one.path)):
                self.left_out.add(NOT_PICTURES, one.path)
            else:
                yield one

    def read(self, path: str, locator: str) -> bytes:  # noqa: ARG002
        try:
            return read_whole(path)
        except BadImage:
            found = self._found(path)
            if found == path:
                raise
            return read_whole(found)

    def _found(self, path: str) -> str:
        """The file that is meant: tried only where there is none of that path."""
        beside = os.path.join(self._folder, path)
        candidates = (beside, existing_path(path), existing_path(beside))
        return next((one for one in candidates if "\0" not in one and os.path.exists(one)), path)

    def _first_bytes(self, path: str) -> bytes:
        try:
            with open(path if os.path.exists(path) else self._found(path), "rb", buffering=0) as file:
                return file.read(START_BYTES)
        except (OSError, ValueError):
            return PNG_START  # a path that cannot be read stays, and becomes a failed row


PNG_START = b"\x89PNG\r\n\x1a\n"


def _lines(spec: str) -> Iterator[Input]:
    """One path a line, or separated by NUL, as `find -print0` writes them. Empty lines are skipped.

    A byte order mark may announce UTF-16, which PowerShell writes, or UTF-8.
    """
    with open(spec, "rb") as file:
        start = file.read(65536)
        encoding = marked_encoding(start)
        if encoding is not None:
            yield from (Input(line) for line in _text_lines(spec, encoding))
            return
        separator = b"\0" if b"\0" in start else b"\n"
        file.seek(0)
        for line in _split(file, separator):
            path = line if separator == b"\0" else line.rstrip(b"\r")
            if path:
                yield Input(os.fsdecode(path))


def _text_lines(spec: str, encoding: str) -> Iterator[str]:
    errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
    with open(spec, encoding=encoding, errors=errors) as file:
        yield from (path for line in file if (path := line.rstrip("\n")))


def _split(file: IO[bytes], separator: bytes) -> Iterator[bytes]:
    rest = b""
    while block := file.read(1 << 16):
        *whole, rest = (rest + block).split(separator)
        yield from whole
    yield rest


def _table(spec: str, columns: Columns) -> Iterator[Input]:
    read = _parquet_rows if spec.lower().endswith(".parquet") else _csv_rows
    for row in read(spec, columns):
        yield Input(row[0], truth=nfc(shown_path(row[1].strip())))


def _csv_rows(spec: str, columns: Columns) -> Iterator[tuple[str, str]]:
    with open(spec, "rb") as file:
        encoding = marked_encoding(file.read(4)) or "utf-8"
    errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
    clean = unguarded if encoding != "utf-8" else str  # a mark: from a spreadsheet, or of --excel
    with open(spec, newline="", encoding=encoding, errors=errors) as text:
        rows = csv.reader(text, delimiter="\t" if spec.lower().endswith(".tsv") else ",")
        try:
            path, truth = _found_columns(spec, next(rows, []), columns)
            for row in rows:
                if row:
                    yield clean(_cell(row, path)), clean(_cell(row, truth))
        except csv.Error as exc:
            raise UsageError(f"{spec} is not a table that can be read: line {rows.line_num}: {exc}") from exc


def _cell(row: list[str], index: int | None) -> str:
    return row[index] if index is not None and index < len(row) else ""


def _parquet_rows(spec: str, columns: Columns) -> Iterator[tuple[str, str]]:
    parquet = import_extra("pyarrow.parquet", "parquet")
    with open(spec, "rb") as data, parquet.ParquetFile(data) as file:
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
            f"{spec} has no column {' or '.join(known)}; its columns are {', '.join(names) or 'none'}.",
            hint="Name it with --path-column.",
        )
    if columns.truth and columns.truth not in names:
        raise UsageError(f"{spec} has no column {columns.truth}; its columns are {', '.join(names)}.")
    truth = columns.truth or TRUTH_COLUMN
    return path, names.index(truth) if truth in names else None


class Zip:
    """The files of a zip; a path is the archive's and the member's name. locator: the member's number.

    zipfile keeps the archive's directory in memory, 0.6 KB for each member.
    """

    def __init__(self, spec: str, options: SourceOptions) -> None:
        self._spec = spec
        self._options = options
        self.left_out = LeftOut()
        try:
            self._zip = zipfile.ZipFile(spec)
        except BROKEN_ZIP as exc:
            raise UsageError(f"{spec!r} is not a zip that can be read: {exc}") from exc
        self._members = self._zip.infolist()

    def inputs(self) -> Iterator[Input]:
        self.left_out.clear()
        for number, member in enumerate(self._members):
            name = member_name(member, self._options.archive_encoding)
            if name.endswith("/"):
                continue
            if reason := self._options.reason(name, partial(self._first_bytes, member)):
                self.left_out.add(reason, name)
            else:
                yield Input(f"{self._spec}/{name}", str(number))

    def read(self, path: str, locator: str) -> bytes:
        try:
            member = self._members[int(locator)]
            _refuse_huge(path, member.file_size)
            return self._zip.read(member)
        except BROKEN_ZIP as exc:
            raise unreadable(f"{path!r} cannot be read: {exc}") from exc

    def close(self) -> None:
        self._zip.close()

    def _first_bytes(self, member: zipfile.ZipInfo) -> bytes:
        try:
            with self._zip.open(member) as file:
                return file.read(START_BYTES)
        except BROKEN_ZIP:
            return PNG_START


def member_name(member: zipfile.ZipInfo, encoding: str | None) -> str:
    """Decode the name of a zip's member, with / between its parts.

    Without the flag of UTF-8: by the extra field that holds it in UTF-8; by `encoding`; as UTF-8, which macOS writes
    without the flag; else its bytes as `os.fsdecode` would make them.
    """
    name = member.orig_filename.partition("\0")[0]
    if not member.flag_bits & UTF8_FLAG and not name.isascii():
        raw = name.encode("cp437")  # what zipfile took it for: every byte has a character there
        name = _unicode_path(member.extra, zlib.crc32(raw)) or decoded_name(raw, encoding)
    return name.replace("\\", "/") if member.create_system in WINDOWS and is_utf8(name) else name


def decoded_name(raw: bytes, encoding: str | None) -> str:
    """Decode a name that has no mark of its encoding."""
    for attempt in (encoding, "utf-8") if encoding else ("utf-8",):
        try:
            return raw.decode(attempt)
        except UnicodeDecodeError:
            continue
    return raw.decode("utf-8", "surrogateescape")


def _unicode_path(extra: bytes, crc: int) -> str | None:
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        data, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == UNICODE_PATH and data[:1] == b"\1" and data[1:5] == struct.pack("<I", crc):
            return data[5:].decode("utf-8", "surrogateescape")
    return None


class Tar:
    """The files of a tar; a compressed one is unpacked into one temporary file first, so that any member is one seek.

    locator: the offset of the member's bytes and their number.
    """

    def __init__(self, spec: str, options: SourceOptions) -> None:
        self._spec = spec
        self._options = options
        self.left_out = LeftOut()
        self._file = _uncompressed(spec)
        try:
            with tarfile.open(fileobj=self._file, mode="r:"):
                pass
        except (OSError, tarfile.TarError) as exc:
            self._file.close()
            raise UsageError(f"{spec!r} is not a tar that can be read: {exc}") from exc

    def inputs(self) -> Iterator[Input]:
        self.left_out.clear()
        for member in self._members():
            if member.isdir():
                continue
            name = member.name
            if not is_utf8(name):
                name = decoded_name(name.encode("utf-8", "surrogateescape"), self._options.archive_encoding)
            if reason := self._reason(member, name):
                self.left_out.add(reason, name)
            else:
                yield Input(f"{self._spec}/{name}", f"{member.offset_data}:{member.size}")

    def read(self, path: str, locator: str) -> bytes:
        offset, size = (int(part) for part in locator.split(":"))
        _refuse_huge(path, size)
        data = os.pread(self._file.fileno(), size, offset)
        if len(data) != size:
            raise unreadable(f"{path!r} is cut off: {len(data)} of {size} bytes are there")
        return data

    def close(self) -> None:
        self._file.close()

    def _members(self) -> Iterator[tarfile.TarInfo]:
        """Yield every member. Raises UsageError where the tar is damaged or cut off, where tarfile only ends."""
        self._file.seek(0)
        with tarfile.open(fileobj=self._file, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            try:
                while (member := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined]  # tarfile remembers all; memory must stay flat
                    yield member
            except tarfile.TarError as exc:
                raise self._damaged(archive.offset) from exc
            if os.pread(self._file.fileno(), tarfile.BLOCKSIZE, archive.offset) != END_OF_TAR:
                raise self._damaged(archive.offset)

    def _damaged(self, offset: int) -> UsageError:
        return UsageError(
            f"{self._spec!r} is cut off or damaged: after {offset:,} bytes there is neither a file nor the tar's end.",
            hint="Copy or pack it again.",
        )

    def _reason(self, member: tarfile.TarInfo, name: str) -> str | None:
        if member.islnk() or member.issym():
            return name_reason(name) or LINKS
        if not member.isfile():
            return name_reason(name) or SPECIAL
        return self._options.reason(name, partial(self._first_bytes, member))

    def _first_bytes(self, member: tarfile.TarInfo) -> bytes:
        return os.pread(self._file.fileno(), min(member.size, START_BYTES), member.offset_data)


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


class Bucket:
    """Every file under an address that fsspec understands: s3://, gs://, https://, memory://, ..."""

    def __init__(self, spec: str, options: SourceOptions) -> None:
        core = import_extra("fsspec.core", "s3")
        self._protocol = spec.split("://", 1)[0]
        self._options = options
        self.left_out = LeftOut()
        try:
            self._fs, self._root = core.url_to_fs(spec)
        except (ImportError, ValueError) as exc:
            raise UsageError(f"{spec!r} cannot be opened: {exc}", hint=install_hint("s3")) from exc

    def inputs(self) -> Iterator[Input]:
        self.left_out.clear()
        for path in self._fs.find(self._root):
            name = path.removeprefix(self._root).lstrip("/") or os.path.basename(path)
            if reason := self._options.reason(name, partial(self._first_bytes, path)):
                self.left_out.add(reason, name)
            else:
                yield Input(f"{self._protocol}://{path.lstrip('/')}", path)

    def read(self, path: str, locator: str) -> bytes:
        try:
            data: bytes = self._fs.cat_file(locator)
        except OSError as exc:
            raise unreadable(f"{path!r} cannot be read: {exc}") from exc
        return data

    def close(self) -> None:
        """fsspec manages its connections itself."""

    def _first_bytes(self, path: str) -> bytes:
        try:
            start: bytes = self._fs.cat_file(path, start=0, end=START_BYTES)
        except OSError:
            return PNG_START
        return start


def import_extra(module: str, extra: str) -> Any:
    """Import a module of an extra. Raises MissingPackage, which names the extra."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as exc:
        package = module.partition(".")[0]
        raise MissingPackage(f"The package {package} is not installed.", hint=install_hint(extra)) from exc


class PictureReader:
    """Reads pictures by the paths in rows of results: a file, a member of an archive, an address. Threads may share it.

    An archive is opened and listed once, at the first of its members. archive_encoding: as in SourceOptions.
    """

    def __init__(self, archive_encoding: str | None = None) -> None:
        self._options = SourceOptions(archive_encoding=archive_encoding)
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
            return Bucket(path, self._options).read(path, path.split("://", 1)[1])
        for parent in Path(path).parents:
            if parent.name.lower().endswith((".zip", *TARS)) and os.path.isfile(spec := existing_path(str(parent))):
                return self._read_member(spec, os.path.normpath(path))
        return read_whole(existing_path(path))

    def _read_member(self, spec: str, path: str) -> bytes:
        with self._lock:
            if spec not in self._archives:
                archive = _open_file(spec, self._options)
                members = {os.path.normpath(shown_path(one.path)): one for one in archive.inputs()}
                self._archives[spec] = archive, members
            archive, members = self._archives[spec]
        if path not in members:
            raise unreadable(f"{path!r} cannot be read: it is not in {spec!r}")
        return archive.read(members[path].path, members[path].locator)
