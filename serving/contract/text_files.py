"""Text that people's programs wrote: its encoding, and spreadsheets that would run it as a formula."""

import codecs
import re
from pathlib import Path

from serving.contract.errors import InvalidData
from serving.contract.names import readings

BOMS = (  # longest first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Source: OWASP, "CSV Injection". The apostrophes before it are those of values that were guarded already.
FORMULA = re.compile("'*[=+\\-@\t\r\n]")


def marked_encoding(start: bytes) -> str | None:
    """Read the encoding that a byte order mark announces, as PowerShell and Excel write it. None without a mark."""
    return next((encoding for bom, encoding in BOMS if start.startswith(bom)), None)


def is_marked(path: Path) -> bool:
    """Tell whether a file begins with a byte order mark. Raises OSError."""
    with path.open("rb") as file:
        return marked_encoding(file.read(4)) is not None


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in the UTF-16 or UTF-32 that its byte order mark announces.

    Raises OSError; InvalidData for any other encoding, which it names where the bytes tell.
    """
    data = path.read_bytes()
    try:
        text = data.decode(marked_encoding(data[:4]) or "utf-8")
    except UnicodeDecodeError as exc:
        line = next((one for one in data.splitlines() if not _is_utf8(one)), data)[:80]
        found = [f"as {encoding} it reads {text!r}" for encoding, text in readings(_bytes_text(line))]
        raise InvalidData(
            f"{path} is not UTF-8: {line!r}{', '.join(['', *found])}.", hint="Save it as UTF-8 (in Excel, CSV UTF-8)."
        ) from exc
    if "\0" in text:
        raise InvalidData(
            f"{path} holds NUL characters: it is no text, or UTF-16 without a byte order mark.",
            hint="Save it as UTF-8 (in Excel, CSV UTF-8).",
        )
    return text


def guarded(text: str) -> str:
    """Put an apostrophe before what a spreadsheet would run as a formula. `unguarded` undoes it."""
    return f"'{text}" if FORMULA.match(text) else text


def unguarded(text: str) -> str:
    """Take away the apostrophe that `guarded` put."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _bytes_text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")
