"""Names of files and classes: one spelling of each, whatever system wrote it.

A path is Python's file system string: bytes that are not UTF-8 are surrogates, as `os.fsdecode` makes them.
"""

import os
import re
import unicodedata
from typing import Literal

# Encodings of names without a mark, as Python and `convmv` call them, and the letters that are at home there.
OLD_ENCODINGS = {
    "cp949": re.compile("[\uac00-\ud7a3]"),
    "cp932": re.compile("[\u3040-\u30ff\u4e00-\u9fff]"),
    "gb18030": re.compile("[\u4e00-\u9fff]"),
    "big5": re.compile("[\u4e00-\u9fff]"),
}
ESCAPED = re.compile(rb"\\x([89a-f][0-9a-f])")
FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")


def nfc(name: str) -> str:
    """Compose the accents and the Hangul of a name: macOS writes them apart (NFD), most others together (NFC)."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def is_utf8(name: str) -> bool:
    """Tell whether a file system string was UTF-8."""
    return name.isascii() or not any("\ud800" <= char <= "\udfff" for char in name)


def shown_path(path: str) -> str:
    """Escape a path for formats that hold UTF-8 only: any other byte becomes \\xNN. `existing_path` finds it again."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def existing_path(path: str) -> str:
    """Find the file that a path of a list, a table or a row means. Returns the path itself where none is there.

    Tried in this order: the path; with the bytes of \\xNN (`shown_path`); with / for the \\ of Windows; composed and
    decomposed (NFC, NFD).
    """
    if "\0" in path or os.path.lexists(path) or not _is_encodable(path):
        return path
    slashed = path.replace("\\", "/")
    others = (_unescaped(path), *(unicodedata.normalize(form, one) for one in (path, slashed) for form in FORMS))
    return next((other for other in others if other != path and os.path.lexists(other)), path)


def _is_encodable(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _unescaped(path: str) -> str:
    raw = path.encode("utf-8", "surrogateescape")
    return ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), raw).decode("utf-8", "surrogateescape")


def readings(name: str) -> list[tuple[str, str]]:
    """Decode a name that is not UTF-8 by the encodings of older systems: (encoding, name), the likeliest first."""
    raw = name.encode("utf-8", "surrogateescape")
    found = []
    for encoding, at_home in OLD_ENCODINGS.items():
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        foreign = sum(not char.isascii() and not at_home.match(char) for char in text)
        found.append((foreign, encoding, text))
    return [(encoding, text) for _, encoding, text in sorted(found, key=lambda one: one[0])]


def readings_text(name: str) -> str:
    """Say how a name that is not UTF-8 may have been meant: `cp949: 고양이; gb18030: 绊剧捞`. "" where nothing fits."""
    return "; ".join(f"{encoding}: {text}" for encoding, text in readings(name))
