"""Training folders and lists as people's systems make them: read alike, or refused with the reason."""

import csv
import io
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.data.datasets import DataSet
from export.data.folders import FileSplit, list_files, load_photos, record_split
from export.data.uint8_input import uint8_preprocessing
from serving.contract.errors import DataNotFound, InvalidData

CAT, DOG = "고양이", "개"
PREPROCESSING = uint8_preprocessing("rgb", (8, 8), "stretch")


def encoded(kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), (200, 30, 30)).save(buffer, kind)
    return buffer.getvalue()


def fill(folder: Path, *, count: int = 4, ending: str = ".jpg") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}{ending}").write_bytes(encoded())
    return folder


def loaded(path: Path, *, strict: bool = False) -> DataSet:
    return load_photos(path, PREPROCESSING, seed=0, strict=strict, validation_share=0.25, test_share=0.25)


def names(data: DataSet) -> list[str]:
    return [label.name for label in data.labels]


def total(data: DataSet) -> int:
    return len(data.train) + len(data.validation) + len(data.test)


def test_a_macs_training_folder_and_anybody_elses_validation_folder_have_the_same_classes(tmp_path: Path) -> None:
    for name in (CAT, DOG):
        fill(tmp_path / "train" / unicodedata.normalize("NFD", name))
        fill(tmp_path / "val" / name)
    data = loaded(tmp_path)
    assert names(data) == [DOG, CAT]
    assert len(data.test) == 8


def test_two_spellings_of_a_class_in_one_folder_are_one_class(tmp_path: Path) -> None:
    for name in (CAT, unicodedata.normalize("NFD", CAT), DOG):
        fill(tmp_path / name)
    data = loaded(tmp_path)
    assert (names(data), total(data)) == ([DOG, CAT], 12)


@pytest.mark.parametrize("other", ["train/ants", "val/ants"])
def test_classes_that_differ_in_case_alone_are_refused(tmp_path: Path, other: str) -> None:
    for name in ("train/Ants", "train/bees", "val/bees", other):
        fill(tmp_path / name)
    with pytest.raises(
        InvalidData, match=r"'ants' (has no training images|and)|'Ants' and 'ants' differ in case alone"
    ):
        loaded(tmp_path)


def test_a_class_without_training_images_is_refused(tmp_path: Path) -> None:
    for name in ("train/ants", "train/bees", "val/ants", "val/wasps"):
        fill(tmp_path / name)
    with pytest.raises(InvalidData, match="'wasps' has no training images that can be read \\(4 of test\\)"):
        loaded(tmp_path)


def test_an_empty_class_folder_is_refused(tmp_path: Path) -> None:
    for name in ("ants", "bees"):
        fill(tmp_path / name)
    (tmp_path / "wasps").mkdir()
    with pytest.raises(InvalidData, match="'wasps' has no training images"):
        loaded(tmp_path)


def test_a_class_whose_images_are_all_damaged_is_refused(tmp_path: Path) -> None:
    for name in ("ants", "bees"):
        fill(tmp_path / name)
    (tmp_path / "wasps").mkdir()
    (tmp_path / "wasps" / "1.jpg").write_bytes(b"no picture")
    with pytest.raises(InvalidData, match="'wasps' has no training images"):
        loaded(tmp_path)


def test_a_class_name_that_is_not_utf8_is_refused_with_what_it_may_be(tmp_path: Path) -> None:
    fill(tmp_path / "ants")
    fill(tmp_path / os.fsdecode(CAT.encode("cp949")))
    with pytest.raises(InvalidData, match=f"is not UTF-8; it may be cp949: {CAT}"):
        loaded(tmp_path)


@pytest.mark.integration
def test_files_whose_names_are_not_utf8_are_read_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorflow")
    for name in ("ants", "bees"):
        folder = fill(tmp_path / "in" / name)
        (folder / os.fsdecode(b"\xb0\xed.jpg")).write_bytes(encoded())
        (folder / os.fsdecode(b"bad \xb0\xed.jpg")).write_bytes(b"no picture")
    data = loaded(tmp_path / "in")
    assert total(data) == 10
    assert "bad \\xb0\\xed.jpg" in capsys.readouterr().err
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    record_split(splits, data.labels, tmp_path / "split.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "split.csv").read_text(encoding="utf-8"))))
    assert sum(row["path"].endswith("\\xb0\\xed.jpg") for row in rows) == 2
    odd = [path for path in _paths(data) if not os.fsencode(path).isascii()]
    split = FileSplit(odd, np.zeros(len(odd), np.int64), PREPROCESSING)
    assert [batch[0].shape for batch in split.batches(2)] == [(2, 8, 8, 3)]


def _paths(data: DataSet) -> list[Path]:
    splits = (data.train, data.validation, data.test)
    return [path for split in splits if isinstance(split, FileSplit) for path in split.paths]


def test_pictures_count_whatever_their_names_end_in(tmp_path: Path) -> None:
    for ending in (".jpg", ".jfif", ".jpe", "", ".JPG", ".dat"):
        fill(tmp_path / "ants", ending=ending)
    fill(tmp_path / "bees")
    assert total(loaded(tmp_path)) == 28


def test_what_is_left_out_is_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (
        "train/ants",
        "train/bees",
        "train/ants/.ipynb_checkpoints",
        "val/ants",
        "train/.cache",
        "holdout/ants",
    ):
        fill(tmp_path / name)
    (tmp_path / "train" / "ants" / "Thumbs.db").write_bytes(b"")
    (tmp_path / "train" / "ants" / "notes.txt").write_text("ants of July")
    (tmp_path / "train" / "loose.jpg").write_bytes(encoded())
    assert total(loaded(tmp_path)) == 12
    said = capsys.readouterr().err
    for line in (
        "left out: 2 hidden (.cache, .ipynb_checkpoints)",
        "left out: 1 of the operating system (Thumbs.db)",
        "left out: 1 not pictures (notes.txt)",
        "left out: 1 not in a class folder (loose.jpg)",
        "left out: 1 beside train/ and the other splits (holdout)",
    ):
        assert line in said


def test_folders_behind_links_count_and_loops_end(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere" / "more")
    fill(tmp_path / "in" / "ants")
    fill(tmp_path / "in" / "bees")
    (tmp_path / "in" / "ants" / "more").symlink_to(tmp_path / "elsewhere" / "more")
    (tmp_path / "in" / "ants" / "loop").symlink_to("..")
    (tmp_path / "in" / "wasps").symlink_to(tmp_path / "elsewhere")
    data = loaded(tmp_path / "in")
    assert (names(data), total(data)) == (["ants", "bees", "wasps"], 16)


def test_split_folders_are_found_in_any_case(tmp_path: Path) -> None:
    for name in ("Train/ants", "Train/bees", "Val/ants"):
        fill(tmp_path / name)
    assert names(loaded(tmp_path)) == ["ants", "bees"]


def test_a_folder_without_classes_says_so(tmp_path: Path) -> None:
    fill(tmp_path)
    with pytest.raises(DataNotFound, match="contains no folders"):
        loaded(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_csv_is_read_in_the_encodings_that_spreadsheets_write(tmp_path: Path, encoding: str) -> None:
    for name in (CAT, DOG):
        fill(tmp_path / unicodedata.normalize("NFD", name))
    rows = ["path,label"]
    rows += [f"{name}\\{number}.jpg,{name}" for name in (CAT, DOG) for number in range(4)]
    (tmp_path / "set.csv").write_bytes("\r\n".join(rows).encode(encoding))
    data = loaded(tmp_path / "set.csv", strict=True)
    assert (names(data), total(data)) == ([DOG, CAT], 8)


def test_a_csv_in_an_old_encoding_is_refused_and_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_bytes(f"path,label\n1.jpg,{CAT}\n".encode("cp949"))
    with pytest.raises(InvalidData, match=f"as cp949 it reads '1.jpg,{CAT}'"):
        list_files(tmp_path / "set.csv")


def test_corrections_of_the_review_page_lose_their_apostrophes(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text("path,label\n'=1.jpg,'-1\n", encoding="utf-8-sig")
    assert list_files(tmp_path / "set.csv").files["train"] == [(tmp_path / "=1.jpg", "-1")]
    (tmp_path / "set.csv").write_text("path,label\n'=1.jpg,'-1\n", encoding="utf-8")
    assert list_files(tmp_path / "set.csv").files["train"] == [(tmp_path / "'=1.jpg", "'-1")]


def test_rows_without_a_label_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "set.csv").write_text("path,label\n1.jpg,ant\n2.jpg,\n3.jpg\n")
    assert len(list_files(tmp_path / "set.csv").files["train"]) == 1
    assert "left out: 2 without a path or a label (row 2, row 3)" in capsys.readouterr().err
