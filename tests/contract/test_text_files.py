from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.contract.errors import InvalidData
from serving.contract.text_files import guarded, is_marked, read_text, unguarded


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_tells_the_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "x").write_bytes("고양이\r\n".encode(encoding))
    assert read_text(tmp_path / "x") == "고양이\r\n"
    assert is_marked(tmp_path / "x") == (encoding != "utf-8")


def test_an_old_encoding_is_named_with_what_it_would_say(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes("cat\n고양이\n".encode("cp949"))
    with pytest.raises(InvalidData, match="as cp949 it reads '고양이'"):
        read_text(tmp_path / "x")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\nx", "'=1"])
def test_a_formula_is_guarded(text: str) -> None:
    assert guarded(text) == f"'{text}"


@pytest.mark.parametrize("text", ["cat", "", "'tis", "a=b", "/home/x-y"])
def test_all_else_stays(text: str) -> None:
    assert guarded(text) == unguarded(text) == text


@given(st.text("'=+-@\t\r\na", max_size=6))
def test_the_guard_can_always_be_taken_away(text: str) -> None:
    assert unguarded(guarded(text)) == text


def test_text_with_nul_characters_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes("cat\ndog\n".encode("utf-16-le"))
    with pytest.raises(InvalidData, match="UTF-16 without a byte order mark"):
        read_text(path)
