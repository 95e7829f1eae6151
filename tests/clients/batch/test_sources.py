import io
import os
import shutil
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from sightline import BadImage, UsageError

from clients.batch.sources import Columns, PictureReader, Source, SourceOptions, open_source
from serving.contract.names import shown_path
from tests.clients.batch.archives import WINDOWS, Unmarked, mac_zip, windows_zip
from tests.clients.shades import png

ODD_NAMES = [
    b"with space.png",
    "größe é.png".encode(),
    b"two\nlines.png",
    b"--help",
    b"not utf-8 \xff\xfe.png",
    b"'\".png",
]

Opened = Callable[..., Source]


def listed(source: Source) -> list[tuple[str, bytes]]:
    """(path, bytes) of every input."""
    return [(one.path, source.read(one.path, one.locator)) for one in source.inputs()]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Opens sources; every one is closed afterwards."""
    with ExitStack() as stack:

        def one(spec: Path | str, /, **columns: str) -> Source:
            return stack.enter_context(closing(open_source(str(spec), SourceOptions(Columns(**columns)))))

        yield one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """b.png, a/c.png, a/d.png, each holding its own name; and what is hidden."""
    root = tmp_path / "in"
    (root / "a").mkdir(parents=True)
    (root / ".git").mkdir()
    for name in ("b.png", "a/c.png", "a/d.png", ".hidden", ".git/x.png"):
        (root / name).write_bytes(name.encode())
    return root


def test_a_folder_is_listed_to_its_depth_in_the_order_of_names(folder: Path, opened: Opened) -> None:
    found = listed(opened(folder))
    assert found == [(f"{folder}/{name}", name.encode()) for name in ("b.png", "a/c.png", "a/d.png")]
    assert list(opened(folder).inputs()) == list(opened(folder).inputs())


def test_output_and_journal_inside_the_folder_are_no_inputs(folder: Path) -> None:
    source = open_source(str(folder), SourceOptions(is_result=lambda path: path.endswith("b.png")))
    assert [Path(one.path).name for one in source.inputs()] == ["c.png", "d.png"]
    assert source.left_out.counts["results of score"] == 1


def test_odd_names_are_found_and_read(tmp_path: Path, opened: Opened) -> None:
    root = os.fsencode(tmp_path)
    for name in ODD_NAMES:
        with open(os.path.join(root, name), "wb") as file:
            file.write(name)
    found = listed(opened(tmp_path))
    assert sorted(os.path.basename(os.fsencode(path)) for path, _ in found) == sorted(ODD_NAMES)
    assert all(os.path.basename(os.fsencode(path)) == data for path, data in found)
    assert shown_path(os.fsdecode(b"x\xff")) == "x\\xff"


def test_what_cannot_be_read_is_listed_and_says_so(folder: Path, opened: Opened) -> None:
    (folder / "broken link.png").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe")
    source = opened(folder)
    paths = [one.path for one in source.inputs()]
    assert f"{folder}/broken link.png" in paths
    assert f"{folder}/pipe" not in paths
    (folder / "b.png").unlink()
    for name in ("broken link.png", "b.png", "pipe", "a", "nul\0"):
        with pytest.raises(BadImage):
            source.read(f"{folder}/{name}", "")


def test_a_file_too_large_to_hold_is_refused_unread(tmp_path: Path, opened: Opened) -> None:
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(300_000_000)
    with pytest.raises(BadImage, match="300,000,000"):
        opened(tmp_path).read(str(tmp_path / "huge.png"), "")


def test_a_glob_is_sorted_and_recursive(folder: Path, opened: Opened) -> None:
    found = listed(opened(f"{folder}/**/*.png"))
    assert [Path(path).name for path, _ in found] == ["c.png", "d.png", "b.png"]


def test_one_picture_is_a_source(folder: Path, opened: Opened) -> None:
    assert listed(opened(folder / "b.png")) == [(str(folder / "b.png"), b"b.png")]


def test_a_list_names_paths_by_line_or_by_nul(folder: Path, tmp_path: Path, opened: Opened) -> None:
    names = tmp_path / "names.txt"
    names.write_bytes(os.fsencode(f"{folder}/b.png\r\n\nin/a/c.png\n{folder}/b.png"))
    assert [data for _, data in listed(opened(names))] == [b"b.png", b"a/c.png", b"b.png"]
    (folder / "two\nlines").write_bytes(b"2")
    names.write_bytes(os.fsencode(f"{folder}/two\nlines\0{folder}/b.png\0"))
    assert [data for _, data in listed(opened(names))] == [b"2", b"b.png"]


def test_a_table_has_a_path_column_and_perhaps_the_truth(folder: Path, tmp_path: Path, opened: Opened) -> None:
    table = tmp_path / "set.csv"
    table.write_text(f'\ufeffid,file,truth\n1,{folder}/b.png,"Boot, ankle"\n2,in/a/c.png,\n', encoding="utf-8")
    source = opened(table)
    assert [(one.path, one.truth) for one in source.inputs()] == [
        (f"{folder}/b.png", "Boot, ankle"), ("in/a/c.png", ""),
    ]  # fmt: skip
    assert [data for _, data in listed(source)] == [b"b.png", b"a/c.png"]
    assert [one.truth for one in opened(table, truth="id").inputs()] == ["1", "2"]
    with pytest.raises(UsageError, match="no column nothing"):
        next(iter(opened(table, path="nothing").inputs()))
    with pytest.raises(UsageError, match="no column nothing"):
        next(iter(opened(table, truth="nothing").inputs()))


def test_a_parquet_file_is_a_table(folder: Path, tmp_path: Path, opened: Opened) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = {"image_path": [f"{folder}/b.png", "in/a/c.png"], "truth": ["Boot", None], "n": [1, 2]}
    parquet.write_table(pyarrow.table(rows), tmp_path / "set.parquet")
    source = opened(tmp_path / "set.parquet")
    assert [one.truth for one in source.inputs()] == ["Boot", ""]
    assert [data for _, data in listed(source)] == [b"b.png", b"a/c.png"]


def test_a_table_of_excel_is_read_without_its_apostrophes(tmp_path: Path, opened: Opened) -> None:
    for name in ("=1.png", "'x.png"):
        (tmp_path / name).write_bytes(name.encode())
    table = "path,truth\r\n'=1.png,'-\r\n'x.png,Boot\r\n"
    (tmp_path / "excel.csv").write_bytes(table.encode("utf-8-sig"))
    source = opened(tmp_path / "excel.csv")
    assert [(one.path, one.truth) for one in source.inputs()] == [("=1.png", "-"), ("'x.png", "Boot")]
    assert [data for _, data in listed(source)] == [b"=1.png", b"'x.png"]
    (tmp_path / "exact.csv").write_text(table)
    assert [one.path for one in opened(tmp_path / "exact.csv").inputs()] == ["'=1.png", "'x.png"]


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_a_tar_is_read_at_any_place(tmp_path: Path, ending: str, opened: Opened) -> None:
    path = tmp_path / f"set.{ending}"
    mode = {"tar": "w", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}.get(ending, "w:gz")
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name in ("a.png", "b/c.png", "a.png", "b/.hidden"):
            member = tarfile.TarInfo(name)
            data = f"{name} {member.offset} {ending}".encode()
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    source = opened(path)
    inputs = list(source.inputs())
    assert [one.path for one in inputs] == [f"{path}/a.png", f"{path}/b/c.png", f"{path}/a.png"]
    assert len({one.locator for one in inputs}) == 3
    assert [source.read(one.path, one.locator)[:5] for one in reversed(inputs)] == [b"a.png", b"b/c.p", b"a.png"]


def packed(path: Path, *members: tarfile.TarInfo) -> bytes:
    """Write a tar of members without content, and one file of 600 bytes at the end."""
    with tarfile.open(path, "w") as archive:
        for member in members:
            archive.addfile(member)
        last = tarfile.TarInfo("last.png")
        last.size = 600
        archive.addfile(last, io.BytesIO(b"x" * 600))
    return path.read_bytes()


def member_of(kind: bytes, name: str, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def test_what_is_no_file_in_a_tar_is_counted_as_left_out(tmp_path: Path, opened: Opened) -> None:
    packed(
        tmp_path / "a.tar",
        member_of(tarfile.DIRTYPE, "folder"),
        member_of(tarfile.SYMTYPE, "soft.png", "last.png"),
        member_of(tarfile.LNKTYPE, "hard.png", "last.png"),
        member_of(tarfile.SYMTYPE, ".hidden.png", "last.png"),
        member_of(tarfile.FIFOTYPE, "pipe"),
    )
    source = opened(tmp_path / "a.tar")
    assert [Path(path).name for path, _ in listed(source)] == ["last.png"]
    assert source.left_out.lines() == [
        "left out: 2 links inside the tar, whose files may be elsewhere in it (soft.png, hard.png)",
        "left out: 1 hidden (.hidden.png)",
        "left out: 1 pipes or devices (pipe)",
    ]


@pytest.mark.parametrize("end", [512, 700, 1024, 1300, 1536, 2048, 2560], ids="cut at {}".format)
def test_a_tar_that_is_cut_off_is_no_shorter_one(tmp_path: Path, end: int, opened: Opened) -> None:
    whole = packed(tmp_path / "a.tar", tarfile.TarInfo("first.png"), tarfile.TarInfo("second.png"))
    (tmp_path / "a.tar").write_bytes(whole[:end])
    with pytest.raises(UsageError, match="cut off or damaged"):
        list(opened(tmp_path / "a.tar").inputs())


def test_a_damaged_header_in_a_tar_does_not_end_the_list(tmp_path: Path, opened: Opened) -> None:
    data = bytearray(packed(tmp_path / "a.tar", tarfile.TarInfo("first.png"), tarfile.TarInfo("second.png")))
    data[512:520] = b"\xff" * 8
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(UsageError, match="after 512 bytes"):
        list(opened(tmp_path / "a.tar").inputs())


def test_a_zip_is_read_and_its_damage_is_one_rows_failure(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", b"a" * 1000)
        archive.writestr("folder/", b"")
        archive.writestr("folder/b.png", b"b" * 1000)
        archive.writestr("__MACOSX/._b.png", b"")
    assert listed(opened(path)) == [(f"{path}/a.png", b"a" * 1000), (f"{path}/folder/b.png", b"b" * 1000)]
    data = bytearray(path.read_bytes())
    data[36:40] = b"\xff\xff\xff\xff"  # in the first member's compressed bytes
    path.write_bytes(data)
    source = opened(path)
    first, second = source.inputs()
    with pytest.raises(BadImage, match=r"a\.png"):
        source.read(first.path, first.locator)
    assert source.read(second.path, second.locator) == b"b" * 1000


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz"])
def test_members_of_an_archive_are_read_again_by_the_paths_of_rows(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.png").write_bytes(b"b" * 1000)
    kind = {".zip": "zip", ".tar": "tar", ".tgz": "gztar"}[name[1:]]
    Path(shutil.make_archive(str(tmp_path / "made"), kind, tmp_path, "in")).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with PictureReader() as reader:
        for spec in (name, f"./{name}", str(tmp_path / name)):
            assert reader.read(f"{spec}/in/b.png") == b"b" * 1000
        with pytest.raises(BadImage, match="it is not in"):
            reader.read(f"{name}/in/c.png")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz"])
def test_an_archive_that_is_none_is_said_at_once(tmp_path: Path, name: str, opened: Opened) -> None:
    (tmp_path / name).write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(UsageError, match=name):
        opened(tmp_path / name)


def test_a_bucket_is_read_through_fsspec(opened: Opened) -> None:
    fsspec = pytest.importorskip("fsspec", reason="the extra `s3` is not installed")
    memory = fsspec.filesystem("memory")
    memory.pipe({"/bucket/x/a.png": b"a", "/bucket/x/b/c.png": b"c", "/bucket/y.png": b"y", "/bucket/x/.z": b"z"})
    source = opened("memory://bucket/x")
    assert listed(source) == [("memory://bucket/x/a.png", b"a"), ("memory://bucket/x/b/c.png", b"c")]
    with PictureReader() as reader:
        assert reader.read("memory://bucket/x/a.png") == b"a"
    memory.rm("/bucket/x/a.png")
    with pytest.raises(BadImage):
        source.read("memory://bucket/x/a.png", "/bucket/x/a.png")


def test_what_is_not_there_is_said(opened: Opened) -> None:
    for spec in ("nowhere", "nowhere.txt", "gibberish://x"):
        with pytest.raises(UsageError):
            opened(spec)


CAT = "고양이"


def test_a_zip_of_windows_is_read_in_its_encoding_with_its_backslashes(tmp_path: Path) -> None:
    path = windows_zip(tmp_path / "set.zip", "cp949", {f"{CAT}/1.png": b"1", f"{CAT}/Thumbs.db": b"", f"{CAT}/": b""})
    with closing(open_source(str(path), SourceOptions(archive_encoding="cp949"))) as source:
        assert listed(source) == [(f"{path}/{CAT}/1.png", b"1")]
        assert source.left_out.counts == {"of the operating system": 1}
    with PictureReader("cp949") as reader:
        assert reader.read(f"{path}/{CAT}/1.png") == b"1"


def test_a_zip_of_windows_without_its_encoding_keeps_the_bytes_of_its_names(tmp_path: Path) -> None:
    path = windows_zip(tmp_path / "set.zip", "cp932", {"猫.png": b"1", "表.png": b"2"})
    with closing(open_source(str(path))) as source:
        assert [os.fsencode(one.path.rpartition("/")[2]) for one in source.inputs()] == [
            "猫.png".encode("cp932"), "表.png".encode("cp932"),  # the second one's last byte is a backslash
        ]  # fmt: skip
        assert [data for _, data in listed(source)] == [b"1", b"2"]
        rows = [shown_path(one.path) for one in source.inputs()]
    with PictureReader() as reader:
        assert [reader.read(path) for path in rows] == [b"1", b"2"]


def test_a_zip_of_a_mac_holds_its_pictures_only(tmp_path: Path, opened: Opened) -> None:
    path = mac_zip(tmp_path / "set.zip", {f"{CAT}/1.png": b"1"})
    source = opened(path)
    (one,) = source.inputs()
    assert one.path == f"{path}/{unicodedata.normalize('NFD', CAT)}/1.png"
    assert source.read(one.path, one.locator) == b"1"
    assert source.left_out.counts == {"of the operating system": 1, "hidden": 1}


def test_a_name_in_the_extra_field_of_a_zip_counts_more_than_its_bytes(tmp_path: Path, opened: Opened) -> None:
    raw = f"{CAT}.png".encode("cp949")
    member = Unmarked(raw, WINDOWS)
    data = b"\1" + struct.pack("<I", zlib.crc32(raw)) + f"{CAT}.png".encode()
    member.extra = struct.pack("<HH", 0x7075, len(data)) + data
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(member, b"1")
    assert [one.path for one in opened(tmp_path / "set.zip").inputs()] == [f"{tmp_path}/set.zip/{CAT}.png"]


def test_names_of_a_tar_are_read_in_an_encoding_too_and_begin_with_a_dot_perhaps(tmp_path: Path) -> None:
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w", encoding="cp949", format=tarfile.GNU_FORMAT) as archive:
        member = tarfile.TarInfo(f"./{CAT}/1.png")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"1"))
    with closing(open_source(str(path), SourceOptions(archive_encoding="cp949"))) as source:
        assert listed(source) == [(f"{path}/./{CAT}/1.png", b"1")]
    with closing(open_source(str(path))) as source:
        assert [data for _, data in listed(source)] == [b"1"]


def test_an_unknown_encoding_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no encoding 'korean-ish'"):
        open_source(str(tmp_path), SourceOptions(archive_encoding="korean-ish"))
    with pytest.raises(UsageError, match="no encoding 'base64'"):
        open_source(str(tmp_path), SourceOptions(archive_encoding="base64"))  # a codec of Python, and of no name


@pytest.mark.parametrize("kind", ["folder", "glob", "list", "zip", "tar"])
def test_only_pictures_are_listed_and_the_rest_is_counted(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for name, data in {"a.png": b"", "b": png(10), "c.jfif": b"", "notes.txt": b"P1 is", "d.csv": b"x"}.items():
        (root / name).write_bytes(data)
    spec = str(root)
    if kind == "glob":
        spec = f"{root}/*"
    elif kind == "list":
        spec = str(tmp_path / "list.txt")
        Path(spec).write_text("".join(f"in/{path.name}\n" for path in sorted(root.iterdir())))
    elif kind != "folder":
        spec = shutil.make_archive(str(tmp_path / "made"), kind, root)
    with closing(open_source(spec, SourceOptions(only_pictures=True))) as source:
        assert sorted(Path(one.path).name for one in source.inputs()) == ["a.png", "b", "c.jfif"]
        assert source.left_out.counts == {"not pictures": 2}
        assert len(list(source.inputs())) == 3
        assert source.left_out.counts == {"not pictures": 2}


def test_a_path_of_a_list_that_cannot_be_read_stays(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("nowhere\n")
    with closing(open_source(str(tmp_path / "list.txt"), SourceOptions(only_pictures=True))) as source:
        assert [one.path for one in source.inputs()] == ["nowhere"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_of_powershell_is_read(folder: Path, tmp_path: Path, encoding: str, opened: Opened) -> None:
    (folder / unicodedata.normalize("NFD", f"{CAT}.png")).write_bytes(b"cat")
    text = f"in\\b.png\r\n\r\nin\\a\\c.png\r\nin\\{CAT}.png\r\n"
    (tmp_path / "names.txt").write_bytes(text.encode(encoding))
    assert [data for _, data in listed(opened(tmp_path / "names.txt"))] == [b"b.png", b"a/c.png", b"cat"]
    table = f"path,truth\r\nin\\b.png,{unicodedata.normalize('NFD', CAT)}\r\n"
    (tmp_path / "names.csv").write_bytes(table.encode(encoding))
    source = opened(tmp_path / "names.csv")
    assert [one.truth for one in source.inputs()] == [CAT]
    assert [data for _, data in listed(source)] == [b"b.png"]


def test_a_table_that_is_none_is_said(tmp_path: Path, opened: Opened) -> None:
    (tmp_path / "x.csv").write_text(f"path\n{'x' * 200_000}\n")
    with pytest.raises(UsageError, match="line 2: field larger than field limit"):
        list(opened(tmp_path / "x.csv").inputs())


def test_the_paths_of_results_lead_to_files_whose_names_are_not_utf8(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/\xb0\xed.png"
    Path(os.fsdecode(raw)).write_bytes(b"1")
    with PictureReader() as reader:
        assert reader.read(shown_path(os.fsdecode(raw))) == b"1"
