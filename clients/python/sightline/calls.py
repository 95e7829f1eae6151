"""The requests of the clients and the reading of their answers, without sending anything.

`Client` and `AsyncClient` differ in how they wait; the rest is here, once.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeVar
from urllib.parse import quote

import httpx

from sightline.errors import (
    BadImage,
    BadRequest,
    SightlineError,
    error_from_problem,
    error_from_response,
    unexpected,
)
from sightline.pictures import Upload
from sightline.results import Failed, Label, Model, Prediction, Version

T = TypeVar("T")

Probabilities = Literal["all"] | None

OK_BELOW = 400  # HTTP statuses from here on are errors


class PredictArguments(TypedDict):
    """The keyword arguments of every `predict` and `predict_many`; see `PredictOptions`."""

    model: str
    top: NotRequired[int]
    version: NotRequired[int | None]
    label: NotRequired[str | None]
    min_score: NotRequired[float | None]
    probabilities: NotRequired[Probabilities]


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """The model that answers, by version or label where one is named, and the form of the answer.

    top: how many labels. min_score: 0-1, below which a prediction has no label; None names it always. probabilities:
    `all` for those of every class. Raises BadRequest with the code `invalid_parameter`, as the gateway would.
    """

    model: str
    top: int = 5
    version: int | None = None
    label: str | None = None
    min_score: float | None = None
    probabilities: Probabilities = None

    def __post_init__(self) -> None:
        for name, is_allowed, wanted in (
            ("top", self.top >= 1, "a whole number from 1"),
            ("min_score", self.min_score is None or 0 <= self.min_score <= 1, "a number from 0 to 1"),
            ("probabilities", self.probabilities in (None, "all"), "'all'"),
        ):
            if not is_allowed:
                raise invalid_parameter(f"{name} is {getattr(self, name)!r}; it must be {wanted}")
        if self.version is not None and self.label is not None:
            raise invalid_parameter("both version and label are given", hint="Send one of them.")


def invalid_parameter(detail: str, hint: str = "") -> BadRequest:
    """The error of an argument that the service would refuse."""
    return BadRequest(detail, hint=hint, code="invalid_parameter")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request. read: turns its answer into a value; fail: turns an answer of 400 and above into an error.

    repeatable: sending it twice does no more than sending it once, so that it may be tried again after an answer was
    lost on its way.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    fail: Callable[[httpx.Response], SightlineError] = error_from_response

    def result(self, response: httpx.Response) -> T:
        """Read an answer. Raises the service's error, UnexpectedAnswer for a 2xx response with an unreadable body."""
        if response.status_code >= OK_BELOW:
            raise self.fail(response)
        try:
            return self.read(response)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as exc:
            raise unexpected(response, exc) from exc


def predict(uploads: Sequence[Upload], options: PredictOptions) -> Call[list[Prediction | Failed]]:
    """`POST /predict/{model}` with one or several pictures; an outcome for each, in their order."""
    names = ("top", "version", "label", "min_score", "probabilities")
    content, headers = multipart({"image": uploads})
    files = [upload.name for upload in uploads]
    return Call(
        "POST",
        f"/predict/{quote(options.model, safe='')}",
        lambda response: _predictions(response, files),
        query({name: getattr(options, name) for name in names}),
        content,
        headers,
    )


def models() -> Call[list[Model]]:
    """`GET /models`."""
    return Call("GET", "/models", lambda response: [_model(row) for row in response.json()["models"]])


def model(name: str) -> Call[Model]:
    """`GET /models/{name}`."""
    return Call("GET", f"/models/{quote(name, safe='')}", lambda response: _model(response.json()))


def ready() -> Call[bool]:
    """`GET /readyz`."""
    return Call("GET", "/readyz", lambda _: True)


def backends() -> Call[list[str]]:
    """`GET /backend`: the gRPC addresses of the model servers."""
    return Call("GET", "/backend", lambda response: [str(address) for address in response.json()["addresses"]])


def query(given: Mapping[str, Any]) -> dict[str, str]:
    """Parameters of a query: None is left out, and so is a flag that is not set; a list is joined by commas."""
    texts = {name: _text(value) for name, value in given.items()}
    return {name: text for name, text in texts.items() if text is not None}


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, bool):
        return "true" if value else None
    return ",".join(map(str, value)) or None if isinstance(value, list | tuple | set | frozenset) else str(value)


def multipart(fields: Mapping[str, Sequence[Upload]]) -> tuple[bytes, dict[str, str]]:
    """(body, headers) of a form; each field holds its uploads as files.

    Written here because a body of many small pictures is made a thousand times a second. Source: RFC 7578.
    """
    boundary = os.urandom(16).hex().encode()
    parts: list[bytes] = []
    for name, upload in ((name, upload) for name, uploads in fields.items() for upload in uploads):
        head = f'Content-Disposition: form-data; name="{name}"; filename="{_quoted(upload.name)}"'
        parts += [b"--", boundary, b"\r\n", head.encode(), b"\r\nContent-Type: application/octet-stream\r\n\r\n"]
        parts += [upload.data, b"\r\n"]
    parts += [b"--", boundary, b"--\r\n"]
    return b"".join(parts), {"Content-Type": f"multipart/form-data; boundary={boundary.decode()}"}


def _quoted(filename: str) -> str:
    """Quote a file's name for a header as browsers do; bytes that are not UTF-8 are replaced."""
    name = filename.encode("utf-8", "replace").decode()
    return name.translate({ord('"'): "%22", ord("\r"): "%0D", ord("\n"): "%0A"})


def _predictions(response: httpx.Response, names: Sequence[str]) -> list[Prediction | Failed]:
    answer = json.loads(response.content)
    rows = answer["predictions"]
    if len(rows) != len(names):
        raise ValueError(f"{len(rows)} predictions for {len(names)} pictures")
    request_id = answer.get("request_id") or response.headers.get("X-Request-ID", "")
    return [_outcome(row, name, answer, request_id) for row, name in zip(rows, names, strict=True)]


def _outcome(row: Mapping[str, Any], name: str, answer: Mapping[str, Any], request_id: str) -> Prediction | Failed:
    if "error" in row:
        problem = row["error"] if isinstance(row["error"], dict) else row
        return Failed(name, error_from_problem(problem, BadImage, request_id=request_id))
    top = tuple([Label(item["label"], item["index"], item["score"], item.get("id")) for item in row["top"]])
    probabilities = row.get("probabilities")
    return Prediction(
        name,
        row["label"],
        row["score"],
        top,
        answer["model"],
        answer["version"],
        request_id,
        row.get("raw_score"),
        row.get("reason"),
        None if probabilities is None else tuple(probabilities),
    )


def _model(row: Mapping[str, Any]) -> Model:
    versions = tuple(
        Version(int(item["version"]), str(item["state"]), str(item.get("error") or "")) for item in row["versions"]
    )
    model = Model(row["name"], versions, row.get("card"))
    if not all(isinstance(label, str) for label in model.labels):  # a card without labels raises here
        raise ValueError("the card names its labels in another way")
    return model


def single(outcomes: list[Prediction | Failed]) -> Prediction:
    """The only prediction of a request. Raises the picture's error."""
    (outcome,) = outcomes
    if isinstance(outcome, Failed):
        raise outcome.error
    return outcome


def failed(uploads: Sequence[Upload], error: SightlineError) -> list[Prediction | Failed]:
    """Mark every picture of a request as failed for the same reason."""
    return [Failed(upload.name, error) for upload in uploads]
