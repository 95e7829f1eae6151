import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.contract.base64_text import decode_base64

DATA = bytes(range(256)) + b"?>"  # both alphabets' own characters, and one character of padding


def wrapped(text: str, end: str) -> str:
    return end.join(text[at : at + 76] for at in range(0, len(text), 76)) + end


STANDARD, URL_SAFE = base64.b64encode(DATA).decode(), base64.urlsafe_b64encode(DATA).decode()


@pytest.mark.parametrize(
    "text",
    [
        STANDARD,
        URL_SAFE,
        STANDARD.rstrip("="),
        URL_SAFE.rstrip("="),
        base64.encodebytes(DATA).decode(),
        wrapped(URL_SAFE, "\n"),  # Android's Base64.DEFAULT and Base64.URL_SAFE
        wrapped(STANDARD, "\r\n"),
        wrapped(STANDARD, "\t \v\f"),
        "data:;base64," + STANDARD,
        "data:image/png;base64," + STANDARD,
        "DATA:image/svg+xml;charset=utf-8;name=a%20b.png;BASE64," + URL_SAFE,
        "data:image/png;name=a,b.png;base64," + STANDARD,
        "\n data:image/png;base64 ,\n" + wrapped(STANDARD, "\n"),
        "data:image/png;base64," + STANDARD.replace("+", "%2B").replace("=", "%3D"),
    ],
)
def test_every_spelling_has_the_same_bytes(text: str) -> None:
    assert decode_base64(text) == DATA


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("QUJD!", "character '!'"),
        ("QU=JD", "character '='"),
        ("QUJDé", "character 'é'"),
        ("QUJD\u200b", "character"),
        ("QUJDR", "5 characters"),
        ("QQ===", "3 padding"),
        ("data:text/plain,QUJD", "without base64"),
        ("data:image/png;base64;charset=utf-8,QUJD", "without base64"),
        ("data:image/png;base64x,QUJD", "without base64"),
        ("data:base64,QUJD", "without base64"),
        ("data:image/png;base64QUJD", "without base64"),
    ],
)
def test_what_is_no_base64_says_why(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        decode_base64(text)


def test_nothing_is_no_bytes() -> None:
    assert decode_base64("") == decode_base64(" \n") == decode_base64("data:image/png;base64,") == b""


@given(st.binary(max_size=100), st.lists(st.tuples(st.integers(0, 200), st.sampled_from(" \n\t\r")), max_size=8))
def test_bytes_survive_white_space_at_any_place(data: bytes, spaces: list[tuple[int, str]]) -> None:
    text = base64.b64encode(data).decode()
    for at, space in spaces:
        text = text[:at] + space + text[at:]
    assert decode_base64(text) == data


def test_time_grows_with_the_length_alone() -> None:
    """Hostile texts of 8 MB: a quadratic step would take hours."""
    began = time.monotonic()
    for text in (
        "data:" * 1_600_000,
        "data:" + ";base64" * 1_000_000,
        " " * 8_000_000,
        "=" * 8_000_000,
        "A " * 4_000_000,
    ):
        try:
            decode_base64(text)
        except ValueError:
            continue
    assert time.monotonic() - began < 20
