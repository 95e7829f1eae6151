"""A gallery moved from store to store by a file."""

from pathlib import Path

import numpy as np
import pytest

from serving.contract.errors import EncoderMismatch, UnknownGallery, UsageError
from serving.faces.galleries.export_file import export_gallery, import_gallery
from serving.faces.galleries.gallery import Entry
from serving.faces.galleries.sqlite_store import SqliteStore


def entry(person: str, *numbers: float, photo: bytes | None = None) -> Entry:
    vector = np.zeros(128, np.float32)
    vector[: len(numbers)] = numbers
    return Entry(person, vector, f"{person}{numbers}", {"side": 100.0}, photo)


# On a line: ada at 0 and 0.2, bob at 1 and 1.1, eve at 1.6.
LINE = [entry("ada", 0), entry("ada", 0.2), entry("bob", 1), entry("bob", 1.1), entry("eve", 1.6)]


def test_gallery_moves_whole(tmp_path: Path) -> None:
    one, other = SqliteStore(tmp_path / "one.db"), SqliteStore(tmp_path / "other.db")
    one.enrol("staff", [*LINE, entry("joe", 3, photo=b"photo")], encoder="dlib@1", expires="2999-01-01")
    assert export_gallery(one, "staff", tmp_path / "staff.jsonl") == 6
    assert (tmp_path / "staff.jsonl").stat().st_mode & 0o777 == 0o600
    assert import_gallery(other, tmp_path / "staff.jsonl") == ("staff", 6)
    assert import_gallery(other, tmp_path / "staff.jsonl") == ("staff", 0)
    assert other.people("staff") == one.people("staff")
    assert [each.photo for each in other.entries("staff")] == [None] * 5 + [b"photo"]
    for before, after in zip(one.entries("staff"), other.entries("staff"), strict=True):
        assert np.array_equal(before.encoding, after.encoding)
        assert (before.photo_sha256, before.quality) == (after.photo_sha256, after.quality)
    other.enrol("mine", [entry("ada", 0)], encoder="dlib@2")
    with pytest.raises(EncoderMismatch):
        import_gallery(other, tmp_path / "staff.jsonl", "mine")
    with pytest.raises(UnknownGallery):
        export_gallery(one, "nowhere", tmp_path / "x")
    one.close()
    other.close()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "line 1"),
        ("{}", "not an exported gallery of version 1"),
        ('{"format": "sightline-gallery", "version": 1, "gallery": "g", "encoder": "e"}\n{"person": "x"}', "line 2"),
        ('{"format": "sightline-gallery", "version": 1, "gallery": "g", "encoder": "e"}\nnonsense', "line 2"),
    ],
)
def test_file_that_is_no_gallery_is_refused_with_its_line(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "x.jsonl").write_text(text)
    store = SqliteStore(tmp_path / "faces.db")
    with pytest.raises(UsageError, match=what):
        import_gallery(store, tmp_path / "x.jsonl")
    assert store.galleries() == []
    store.close()


def test_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "faces.db")
    store.enrol("default", LINE, encoder="dlib@1")
    with pytest.raises(UsageError, match="cannot be written"):
        export_gallery(store, "default", tmp_path / "no" / "such" / "folder.jsonl")
    store.close()
