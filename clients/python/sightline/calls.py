"""Every request that the clients make and how its answer is read, without sending anything.

`Client` and `AsyncClient` differ in how they wait; what they say and hear is written here, once.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

import httpx

from serving.contract.card import card_from_json
from serving.contract.errors import InvalidCard, InvalidParameter, SightlineError
from serving.contract.prediction import Label
from sightline.errors import error_from_problem, error_from_response, unexpected
from sightline.pictures import Upload
from sightline.results import Failed, Model, Prediction, Version

T = TypeVar("T")

Probabilities = Literal["all"] | None

OK_BELOW = 400  # HTTP statuses from here on are errors


@dataclass(frozen=True, slots=True)
class Asked:
    """Which model, by version or label where one is named, and what of each picture.

    top: how many labels. min_score: 0-1, below which a prediction has no label; None names it always. probabilities:
    `all`, those of every class. Raises InvalidParameter, as the gateway would.
    """

    model: str
    top: int
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
                raise InvalidParameter(f"{name} is {getattr(self, name)!r}; it must be {wanted}")
        if self.version is not None and self.label is not None:
            raise InvalidParameter("both version and label are given", hint="Send one of them.")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and how its answer is read.

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

    def result(self, response: httpx.Response) -> T:
        """What the answer says. Raises the service's error, UnexpectedAnswer where the answer cannot be read."""
        if response.status_code >= OK_BELOW:
            raise error_from_response(response)
        try:
            return self.read(response)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as exc:
            raise unexpected(response, exc) from exc


def predict(uploads: Sequence[Upload], asked: Asked) -> Call[list[Prediction | Failed]]:
    """`POST /predict/{model}` with one or several pictures; an outcome for each, in their order."""
    names = ("top", "version", "label", "min_score", "probabilities")
    params = {name: getattr(asked, name) for name in names}
    content, headers = multipart({"image": uploads})
    files = [upload.name for upload in uploads]
    return Call(
        "POST",
        f"/predict/{quote(asked.model, safe='')}",
        lambda response: _predictions(response, files),
        {name: str(value) for name, value in params.items() if value is not None},
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
    """A file's name inside the quotes of a header: as browsers write it, bytes that are not UTF-8 replaced."""
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
        error = error_from_problem(problem)
        error.request_id = request_id
        return Failed(name, error)
    top = tuple([Label(item["label"], item["index"], item["score"]) for item in row["top"]])
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
    return Model(row["name"], versions, _card(row.get("card")))


def _card(data: Any) -> Any:
    """The card, None where the answer has none. A card of another schema is an unexpected answer."""
    if data is None:
        return None
    try:
        return card_from_json(json.dumps(data))
    except InvalidCard as exc:
        raise ValueError(exc.detail) from exc


def single(outcomes: list[Prediction | Failed]) -> Prediction:
    """The one prediction of a request with one picture. Raises the picture's error."""
    (outcome,) = outcomes
    if isinstance(outcome, Failed):
        raise outcome.error
    return outcome


def failed(uploads: Sequence[Upload], error: SightlineError) -> list[Prediction | Failed]:
    """Every picture of a request as failed for the same reason."""
    return [Failed(upload.name, error) for upload in uploads]
