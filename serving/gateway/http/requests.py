"""Requests to images: multipart forms, raw bytes and base64 JSON. Add an upload encoding here."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Request, current_app
from werkzeug.datastructures import Headers

from serving.backend.predictor import Call, ModelRef
from serving.contract.base64_text import decode_base64
from serving.contract.compression import CODINGS, unpack, unpacked_memory
from serving.contract.errors import (
    BadImage,
    BadRequest,
    EmptyBody,
    InvalidBase64,
    InvalidJson,
    InvalidMultipart,
    InvalidParameter,
    MissingImage,
    RequestTooLarge,
    TooManyImages,
    UnsupportedContentEncoding,
    UnsupportedContentType,
)
from serving.contract.executor import Executor, run_inline
from serving.contract.json_body import JsonLimits, json_memory, parse_json, run_sized
from serving.gateway.http.forms import Part, read_form
from serving.gateway.http.openapi import BYTES, PATHS, Parameter
from serving.gateway.http.schemas import Base64Pictures

FIELD = "image"
DEFAULT_TOP = 5
QUERY = (
    Parameter("top", {"type": "integer", "minimum": 1, "default": DEFAULT_TOP}, "Labels per image."),
    Parameter(
        "min_score",
        {"type": "number", "minimum": 0, "maximum": 1, "default": 0},
        "A prediction with a lower score has no label, and the reason `uncertain`.",
    ),
    Parameter("probabilities", {"enum": ["all"]}, "Add the probabilities of every class."),
    Parameter("input", {"enum": ["png"]}, "Add the model's input for each image, as a `data:` URL."),
    Parameter("version", PATHS["version"], "The version that must answer."),
    Parameter("label", {"type": "string", "pattern": r"^\w+$"}, "The version label that must answer."),
)
TIMEOUT = "X-Request-Timeout"
TIMEOUT_HEADER = Parameter(
    TIMEOUT, {"type": "number", "exclusiveMinimum": 0}, "Deadline of the answer, seconds.", place="header"
)
RAW_TYPES = ("", "application/octet-stream", "binary/octet-stream")  # and image/*
URLENCODED = "application/x-www-form-urlencoded"
PICTURES = {
    "multipart/form-data": {
        "type": "object",
        "properties": {FIELD: {"type": "array", "items": BYTES, "minItems": 1}},
        "required": [FIELD],
    },
    "image/*": BYTES,
    "application/octet-stream": BYTES,
    "application/json": Base64Pictures,
}  # the bodies that `read_uploads` reads
BODY_ERRORS = (BadRequest, RequestTooLarge, UnsupportedContentType, UnsupportedContentEncoding)
HINT = (
    "Send a form with the field `image` (curl -F image=@photo.jpg), the image's bytes (-H 'Content-Type: image/jpeg' "
    '--data-binary @photo.jpg), or JSON {"images": [{"b64": "..."}]}.'
)

# https://www.w3.org/TR/trace-context/: version, trace id, span id, flags; ids are not all zero
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Upload:
    """One image of a request. name: the client's, or "". data: its bytes, or the error of reading them."""

    name: str
    data: bytes | BadImage


def read_uploads(
    request: Request, max_images: int, limits: JsonLimits, executor: Executor = run_inline
) -> Sequence[Upload]:
    """Read the images of a request, in the order in which they were sent; at least one.

    limits: of JSON. executor: unpacks a compressed body, and parses JSON where it is large.
    Raises EmptyBody, MissingImage, InvalidMultipart, InvalidJson, TooManyImages, UnsupportedContentType.
    """
    uploads = _uploads(request, limits, executor)
    if len(uploads) > max_images:
        raise TooManyImages(
            f"The request holds {len(uploads)} images; the limit is {max_images} (SIGHTLINE_MAX_IMAGES).",
            hint="Send them in several requests.",
        )
    return uploads


def read_pair(request: Request, fields: tuple[str, str], executor: Executor) -> tuple[bytes, bytes]:
    """Read the files of two fields of a form. Raises MissingImage, InvalidMultipart, UnsupportedContentType."""
    if request.mimetype != "multipart/form-data":
        one, other = fields
        raise UnsupportedContentType(
            f"The content type is {request.mimetype!r}; a form with the fields {one!r} and {other!r} is expected.",
            hint=f"Send both as files: curl -F {one}=@one.jpg -F {other}=@other.jpg",
        )
    parts = _parts(request, executor)
    return _file(parts, fields[0]), _file(parts, fields[1])


def read_top(args: Mapping[str, str]) -> int:
    """Read the query parameter `top`, the number of labels per image."""
    return _parsed(args, "top", _whole, lambda value: value >= 1, "a whole number from 1") or DEFAULT_TOP


def read_min_score(args: Mapping[str, str]) -> float:
    """Read the query parameter `min_score`, the lowest score of a prediction with a label."""
    return _parsed(args, "min_score", float, lambda value: 0 <= value <= 1, "a number from 0 to 1") or 0.0


def read_all_probabilities(args: Mapping[str, str]) -> bool:
    """Read the query parameter `probabilities=all`."""
    return _parsed(args, "probabilities", str, lambda value: value == "all", "all") is not None


def read_with_inputs(args: Mapping[str, str]) -> bool:
    """Read the query parameter `input=png`, which adds the model's input to the answer."""
    return _parsed(args, "input", str, lambda value: value == "png", "png") is not None


def read_model_ref(model: str, args: Mapping[str, str]) -> ModelRef:
    """Read the model chosen by the path and the query parameters `version` and `label`. Raises InvalidParameter."""
    require_known(args, QUERY)
    version = _version(args)
    label = _parsed(args, "label", str, lambda value: bool(re.fullmatch(r"\w+", value)), "letters, digits and _")
    if version is not None and label is not None:
        raise InvalidParameter("Both version and label are given.", hint="Send one of them.")
    return ModelRef(model, version, label)


def require_known(args: Mapping[str, str], known: Sequence[Parameter]) -> Mapping[str, str]:
    """Return the parameters. Raises InvalidParameter for an unknown one: it may be misspelt."""
    names = [parameter.name for parameter in known]
    for name in args:
        if name not in names:
            hint = f"Known parameters: {', '.join(names)}." if names else "This address takes none."
            raise InvalidParameter(f"The parameter {name!r} is unknown.", hint=hint)
    return args


def read_version(text: str | None) -> int | None:
    """Read a version in a path. Raises InvalidParameter."""
    return None if text is None else _version({"version": text})


def read_body(request: Request, executor: Executor) -> bytes:
    """Read the whole body and undo its Content-Encoding, gzip or deflate.

    executor: undoes it.
    Raises RequestTooLarge past MAX_CONTENT_LENGTH bytes, BadRequest, UnsupportedContentEncoding.
    """
    data: bytes = request.get_data(cache=False)
    coding = request.headers.get("Content-Encoding", "").strip().lower()
    if coding in ("", "identity"):
        return data
    if coding not in CODINGS:
        raise UnsupportedContentEncoding(
            f"The body's Content-Encoding is {coding!r}; gzip and deflate are accepted.",
            hint="Compress the body with one of them, or leave it as it is.",
        )
    most: int = current_app.config["MAX_CONTENT_LENGTH"]
    return executor(lambda: unpack(data, coding, most), unpacked_memory(data, most))


def read_call(headers: Headers, longest_seconds: float, is_abandoned: Callable[[], bool] = lambda: False) -> Call:
    """Read the deadline of a request, and the metadata that is passed on with it.

    `X-Request-Timeout` (seconds) may shorten `longest_seconds`. A well-formed W3C `traceparent` is passed on with its
    `tracestate`; another is dropped, as the recommendation says. Raises InvalidParameter.
    is_abandoned: returns True when the client has gone.
    """
    seconds = _parsed(headers, TIMEOUT, float, lambda value: value > 0, "a number of seconds above 0")
    deadline = time.monotonic() + min(seconds or longest_seconds, longest_seconds)
    return Call(deadline, _trace(headers), is_abandoned)


def _version(args: Mapping[str, str]) -> int | None:
    return _parsed(args, "version", _whole, lambda value: value < 2**63, "a whole number")


def _whole(text: str) -> int:
    """Parse ASCII digits only: int() also takes spaces, signs, underscores and digits of other scripts."""
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(text)
    return int(text)


def _trace(headers: Headers) -> tuple[tuple[str, str], ...]:
    parent, state = headers.get("traceparent", ""), headers.get("tracestate", "")
    if not TRACEPARENT.fullmatch(parent):
        return ()
    return (("traceparent", parent), *([("tracestate", state)] if TRACESTATE.fullmatch(state) else []))


def _parsed(
    args: Mapping[str, str] | Headers, name: str, kind: Callable[[str], T], allowed: Callable[[T], bool], wanted: str
) -> T | None:
    if name not in args:  # Werkzeug's get() raises and catches an exception for what is not there
        return None
    text = args[name]
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not allowed(value):
        raise InvalidParameter(f"{name} is {text!r}; it must be {wanted}.")
    return value


def _uploads(request: Request, limits: JsonLimits, executor: Executor) -> Sequence[Upload]:
    mimetype = request.mimetype
    if mimetype == "multipart/form-data":
        return _from_form(_parts(request, executor))
    if mimetype == "application/json":
        return _from_json(read_body(request, executor), limits, executor)
    if mimetype == URLENCODED:
        return _from_urlencoded(read_body(request, executor))
    if mimetype in RAW_TYPES or mimetype.startswith("image/"):
        return _raw(read_body(request, executor))
    raise UnsupportedContentType(f"The content type is {mimetype!r}.", hint=HINT)


def _parts(request: Request, executor: Executor) -> list[Part]:
    boundary = request.mimetype_params.get("boundary")
    if not boundary:
        raise InvalidMultipart(
            "The content type multipart/form-data names no boundary.",
            hint="Let the HTTP library write the Content-Type header: it knows the boundary.",
        )
    return read_form(read_body(request, executor), boundary)


def _file(parts: Sequence[Part], field: str) -> bytes:
    for part in parts:
        if part.name == field and part.filename is not None:
            return part.data
    raise _without_file(parts, field, hint=f"Send each photo as a file: curl -F {field}=@photo.jpg")


def _without_file(parts: Sequence[Part], field: str, hint: str) -> MissingImage:
    found = sorted({part.name or "one without a name" for part in parts})
    return MissingImage(
        f"The form has no file in the field {field!r}; its fields: {', '.join(found) if found else 'none'}.",
        hint=hint,
    )


def _from_form(parts: Sequence[Part]) -> Sequence[Upload]:
    uploads = [Upload(part.filename or "", part.data) for part in _pictures(parts)]
    uploads = uploads or [_from_data_url(part) for part in parts if _is_data_url(part)]
    if not uploads:
        raise _without_file(parts, FIELD, HINT)
    return uploads


def _pictures(parts: Sequence[Part]) -> Sequence[Part]:
    """Return the files of the field `image`; where there is none, the only file of the form, whatever its field is.

    .NET's ByteArrayContent has no file name unless it is given one; no text has zero bytes.
    """
    files = [part for part in parts if part.filename is not None]
    named = [part for part in parts if part.name == FIELD and (part.filename is not None or b"\0" in part.data)]
    sent = [part for part in files if part.filename or part.data]  # browsers send an empty input as an empty file
    return named or (sent if len(sent) == 1 else ())


def _is_data_url(part: Part) -> bool:
    return part.name == FIELD and part.data[:5].lower() == b"data:"


def _from_data_url(part: Part) -> Upload:
    """Read a text field: pages append `canvas.toDataURL()` to their form."""
    return Upload("", _decoded_base64(part.data.decode("utf-8", "replace"), FIELD))


def _raw(data: bytes) -> Sequence[Upload]:
    if not data:
        raise EmptyBody("The request has no body.", hint=HINT)
    return [Upload("", data)]


def _from_urlencoded(data: bytes) -> Sequence[Upload]:
    """Read the bytes of an image under the content type that curl's --data-binary and Python's urllib write by default.

    curl's -d writes it, too, and drops zero bytes and line ends of the file: what is left must not be decoded. Every
    format but PPM has zero bytes, and no form has one.
    """
    if data and b"\0" not in data:
        raise UnsupportedContentType(
            f"The content type is {URLENCODED!r}, and the body is no image.",
            hint=f"With curl use --data-binary: -d drops bytes of the file. {HINT}",
        )
    return _raw(data)


def _from_json(data: bytes, limits: JsonLimits, executor: Executor) -> Sequence[Upload]:
    if not data:
        raise EmptyBody("The request has no body.", hint=HINT)
    return run_sized(data, executor)(lambda: _from_document(data, limits), json_memory(data))


def _from_document(data: bytes, limits: JsonLimits) -> Sequence[Upload]:
    try:
        body = parse_json(data, limits)
    except InvalidJson as exc:
        raise InvalidJson(exc.detail, hint=HINT) from exc
    images = body.get("images") if isinstance(body, dict) else None
    if not isinstance(images, list):
        raise InvalidJson('The body is not a JSON object with a list "images".', hint=HINT)
    if not images:
        raise MissingImage('The list "images" is empty.', hint=HINT)
    return [_from_entry(entry, f"images[{index}]") for index, entry in enumerate(images)]


def _from_entry(entry: Any, where: str) -> Upload:
    if isinstance(entry, str):
        return Upload("", _decoded_base64(entry, where))
    if not isinstance(entry, dict) or not isinstance(entry.get("b64"), str) or set(entry) - {"b64", "name"}:
        raise InvalidJson(
            f'{where} is neither base64 nor an object with a string "b64" and optionally "name".', hint=HINT
        )
    name = entry.get("name", "")
    if not isinstance(name, str):
        raise InvalidJson(f"{where}.name is not a string.", hint=HINT)
    return Upload(name, _decoded_base64(entry["b64"], f"{where}.b64"))


def _decoded_base64(text: str, where: str) -> bytes | BadImage:
    try:
        return decode_base64(text)
    except ValueError as exc:
        return InvalidBase64(f"{where} is not base64: {exc}.", hint="Encode the bytes of the image file.")
