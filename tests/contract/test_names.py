import os
import unicodedata
from pathlib import Path

import pytest

from serving.contract.names import existing_path, is_utf8, nfc, readings, readings_text, shown_path

CAT = "고양이"
NFD = unicodedata.normalize("NFD", CAT)


def test_a_macs_name_and_anybody_elses_are_one() -> None:
    assert NFD != CAT
    assert nfc(NFD) == nfc(CAT) == CAT
    assert nfc("cafe\u0301") == "café"


@pytest.mark.parametrize(("text", "encoding"), [("고양이", "cp949"), ("ねこの写真", "cp932"), ("中文图片", "gb18030")])
def test_the_likeliest_encoding_of_a_name_comes_first(text: str, encoding: str) -> None:
    name = os.fsdecode(text.encode(encoding))
    assert not is_utf8(name)
    assert readings(name)[0] == (encoding, text)
    assert readings_text(name).startswith(f"{encoding}: {text}")


def test_a_path_as_it_is_written_leads_back_to_its_file(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/" + CAT.encode("cp949") + b".jpg"
    Path(os.fsdecode(raw)).write_bytes(b"")
    shown = shown_path(os.fsdecode(raw))
    assert is_utf8(shown)
    assert os.fsencode(existing_path(shown)) == raw


@pytest.mark.parametrize(
    ("on_disk", "listed"),
    [(NFD, CAT), (CAT, NFD), ("cats/1.jpg", "cats\\1.jpg"), (f"{NFD}/1.jpg", f"{CAT}\\1.jpg")],
)
def test_a_path_of_another_system_is_found(tmp_path: Path, on_disk: str, listed: str) -> None:
    (tmp_path / on_disk).parent.mkdir(exist_ok=True)
    (tmp_path / on_disk).write_bytes(b"")
    assert existing_path(f"{tmp_path}/{listed}") == f"{tmp_path}/{on_disk}"


def test_a_path_that_is_there_stays_and_so_does_one_that_is_nowhere(tmp_path: Path) -> None:
    for name in ("a\\xff.jpg", os.fsdecode(b"a\xff.jpg")):
        (tmp_path / name).write_bytes(b"")
    for path in (f"{tmp_path}/a\\xff.jpg", "nowhere\\xff/b\\c", "nul\0", "lone \ud800"):
        assert existing_path(path) == path
