"""Folders as macOS, Windows and Linux leave them, walked."""

import io
import os
import struct
from pathlib import Path

import pytest
from PIL import Image

from serving.contract.picture_files import LeftOut, is_picture, picture_files, walk


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), (200, 30, 30)).save(buffer, kind)
    return buffer.getvalue()


def walked(root: Path) -> tuple[list[str], dict[str, int]]:
    """(paths relative to root, what is left out by reason)."""
    left_out = LeftOut()
    return [os.path.relpath(path, root) for path in picture_files(str(root), left_out)], dict(left_out.counts)


def test_content_decides_where_the_ending_does_not(tmp_path: Path) -> None:
    jpeg = encoded("JPEG")
    for name in ("a.jpg", "b.jfif", "c.jpe", "d", "E.JPG", "f.PNG.backup"):
        (tmp_path / name).write_bytes(jpeg)
    (tmp_path / "notes.txt").write_text("P1 is the first of them")
    (tmp_path / "bmw").write_text("BMW Isetta, 1955")
    (tmp_path / "song").write_bytes(b"RIFF\0\0\0\0WAVEfmt ")
    found, left_out = walked(tmp_path)
    assert found == ["E.JPG", "a.jpg", "b.jfif", "c.jpe", "d", "f.PNG.backup"]
    assert left_out == {"not pictures": 3}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"])
def test_every_format_is_told_by_its_first_bytes(kind: str) -> None:
    assert is_picture("without-ending", lambda: encoded(kind)[:1024])


def test_the_ending_decides_without_opening_the_file() -> None:
    def never() -> bytes:
        raise AssertionError

    assert is_picture("x/a.JPEG", never)


def test_what_a_mac_and_windows_leave_behind_does_not_count(tmp_path: Path) -> None:
    for name in (
        "cat.jpg", "._cat.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/._cat.jpg", "Icon\r",
        ".ipynb_checkpoints/cat-checkpoint.jpg", "@eaDir/cat.jpg/SYNOPHOTO_THUMB_M.jpg",
        "System Volume Information/x.jpg",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded("JPEG"))
    found, left_out = walked(tmp_path)
    assert found == ["cat.jpg"]
    assert left_out == {"hidden": 3, "of the operating system": 6}


def test_links_to_folders_are_followed_and_each_folder_counts_once(tmp_path: Path) -> None:
    for name in ("in/real/1.jpg", "in/sub/2.jpg", "elsewhere/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded("JPEG"))
    root = tmp_path / "in"
    for link, target in (
        ("a-link", "../elsewhere"), ("again", "../elsewhere"), ("latest", "real"), ("sub/up", ".."),
        ("sub/out", "../.."),
        ("self", "self"), ("broken.jpg", "nowhere"), ("one.jpg", "real/1.jpg"),
    ):  # fmt: skip
        (root / link).symlink_to(target)
    found, left_out = walked(root)
    assert found == ["broken.jpg", "one.jpg", "self", "real/1.jpg", "sub/2.jpg", "a-link/3.jpg"]
    assert left_out == {"listed already, or a loop": 4}


def test_the_order_is_the_same_each_time_and_pipes_are_counted(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("b/1", "a/1", "1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    left_out = LeftOut()
    assert [os.path.relpath(path, tmp_path) for path in walk(str(tmp_path), left_out)] == ["1", "a/1", "b/1"]
    assert left_out.lines() == ["left out: 1 pipes or devices (pipe)"]


def test_the_lines_name_a_few_and_no_bytes_that_cannot_be_printed() -> None:
    left_out = LeftOut()
    for name in ("a/1.txt", os.fsdecode(b"b/\xb0\xed.txt"), "3", "4"):
        left_out.add("not pictures", name)
    assert left_out.lines() == ["left out: 4 not pictures (1.txt, \\xb0\\xed.txt, 3, ...)"]


def test_a_header_of_a_raw_bitmap_needs_its_one_plane() -> None:
    assert not is_picture("x", lambda: struct.pack("<I", 40) * 300)
