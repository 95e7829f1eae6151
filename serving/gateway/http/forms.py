"""Forms (multipart/form-data, RFC 7578) that lie in memory, taken apart.

Rarely by Werkzeug, which reads forms from streams of any size: of 32 small pictures that took as long as decoding them.
"""

import io
from dataclasses import dataclass

from multipart import MultipartSegment, ParserLimitReached, PushMultipartParser
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from serving.contract.errors import InvalidMultipart, RequestTooLarge

MOST_PARTS = 1000
BYTEWISE = "latin1"  # headers are decoded byte for byte first: not every client writes UTF-8


@dataclass(frozen=True, slots=True)
class Part:
    """One field of a form. name: "" where it has none. filename: None where it is no file."""

    name: str
    filename: str | None
    data: bytes


def read_form(body: bytes, boundary: str) -> list[Part]:
    """The parts of a form in their order; none of an empty body. Raises InvalidMultipart, RequestTooLarge.

    boundary: what the content type says stands between them.
    """
    if not body:
        return []
    try:
        may_lack_bodies = b"\r\n\r\n--" + boundary.encode() in body
        return _with_werkzeug(body, boundary) if may_lack_bodies else _parsed(body, boundary)
    except (ParserLimitReached, RequestEntityTooLarge) as exc:
        raise RequestTooLarge(
            f"the form goes beyond a limit ({exc}); it may have {MOST_PARTS:,} parts",
            hint="Send the pictures in several requests.",
        ) from exc
    except ValueError as exc:  # MultipartError is one
        raise InvalidMultipart(
            f"the form of {len(body):,} bytes cannot be taken apart: {exc}",
            hint="Was it cut off? Let the HTTP library write the form and its Content-Type header.",
        ) from exc


def _parsed(body: bytes, boundary: str) -> list[Part]:
    parts: list[Part] = []
    name, filename, chunks = "", None, list[bytes]()
    with PushMultipartParser(boundary, max_segment_count=MOST_PARTS, header_charset=BYTEWISE) as parser:
        for event in parser.parse(body):
            if isinstance(event, MultipartSegment):
                name, filename, chunks = event.name, event.filename, []
            elif event:
                chunks.append(event)
            else:
                parts.append(Part(_text(name), None if filename is None else _text(filename), b"".join(chunks)))
    return parts


def _with_werkzeug(body: bytes, boundary: str) -> list[Part]:
    """Of a form in which a part may have no body at all, not even an empty one: RFC 2046 allows that."""
    parser = FormDataParser(_in_memory, max_form_memory_size=None, silent=False, max_form_parts=MOST_PARTS)
    options = {"boundary": boundary}
    _, fields, files = parser.parse(io.BytesIO(body), "multipart/form-data", len(body), options)
    return [
        *(Part(name or "", file.filename, file.read()) for name, file in files.items(multi=True)),
        *(Part(name or "", None, text.encode()) for name, text in fields.items(multi=True)),
    ]


def _in_memory(*about: object, **more: object) -> io.BytesIO:  # noqa: ARG001 - of the file, which lies in memory
    return io.BytesIO()


def _text(header: str) -> str:
    return header if header.isascii() else header.encode(BYTEWISE).decode("utf-8", "replace")
