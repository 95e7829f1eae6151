"""Parse forms (multipart/form-data, RFC 7578) that are in memory.

Werkzeug's parser is made for streams of any size: for 32 small images it took as long as decoding them.
"""

from dataclasses import dataclass

from multipart import MultipartSegment, ParserLimitReached, PushMultipartParser
from werkzeug.http import parse_options_header

from serving.contract.errors import InvalidMultipart, RequestTooLarge

MOST_PARTS = 1000
BYTEWISE = "latin1"  # headers are decoded byte for byte first: not every client writes UTF-8


@dataclass(frozen=True, slots=True)
class Part:
    """One field of a form. name: "" where it has none. filename: None where it is not a file."""

    name: str
    filename: str | None
    data: bytes


def read_form(body: bytes, boundary: str) -> list[Part]:
    """Return the parts of a form in order; none for an empty body. Raises InvalidMultipart, RequestTooLarge.

    boundary: the parameter of the content type.
    """
    if not body:
        return []
    try:
        return _parsed(body, boundary)
    except ParserLimitReached as exc:
        raise RequestTooLarge(
            f"The form exceeds a limit ({exc}); it may have {MOST_PARTS:,} parts.",
            hint="Send the images in several requests.",
        ) from exc
    except ValueError as exc:  # MultipartError is one
        raise InvalidMultipart(
            f"The form of {len(body):,} bytes cannot be parsed: {exc}.",
            hint="It may be cut off. Let the HTTP library write the form and its Content-Type header.",
        ) from exc


def _parsed(body: bytes, boundary: str) -> list[Part]:
    delimiter = b"--" + boundary.encode()
    parts: list[Part] = []
    name, filename, chunks = "", None, list[bytes]()
    with PushMultipartParser(boundary, max_segment_count=MOST_PARTS, header_charset=BYTEWISE) as parser:
        for event in parser.parse(body):
            if isinstance(event, MultipartSegment):
                name, filename, chunks = event.name, _filename(event), []
            elif event:
                chunks.append(event)
            else:
                data = b"".join(chunks)
                _require_body(data, delimiter)
                parts.append(Part(_text(name), filename, data))
    return parts


def _require_body(data: bytes, delimiter: bytes) -> None:
    """Raise ValueError for a part without a body: what follows it would be taken for its content."""
    if data.startswith(delimiter) and data[len(delimiter) : len(delimiter) + 2] in (b"\r\n", b"--"):
        raise ValueError("a part has no body, not even an empty one")


def _filename(segment: MultipartSegment) -> str | None:
    """Return the file's name; None for a field that is no file.

    RFC 7578 forbids `filename*`, and .NET and old versions of requests send it, beside `filename` or alone. It counts
    where there are both (RFC 6266, section 4.3).
    """
    disposition = segment.header("Content-Disposition") or ""
    if "filename*" in disposition.lower():
        return parse_options_header(disposition)[1].get("filename", "")
    return None if segment.filename is None else _text(segment.filename)


def _text(header: str) -> str:
    return header if header.isascii() else header.encode(BYTEWISE).decode("utf-8", "replace")
