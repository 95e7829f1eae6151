"""The clients: `Client`, and `AsyncClient` with the same methods to await."""

import asyncio
import itertools
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, TypeVar

import httpx

from serving.contract.errors import (
    BadImage,
    RequestTooLarge,
    ServiceUnreachable,
    TooManyImages,
    Unavailable,
    UnreadableFile,
    UsageError,
)
from sightline import calls
from sightline.calls import Asked, Call, Probabilities
from sightline.errors import error_from_transport
from sightline.faces import AsyncFaces, Faces
from sightline.pictures import Picture, Upload, to_upload
from sightline.results import Failed, Model, Prediction
from sightline.retries import Retries

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT = httpx.Timeout(60.0, connect=5.0)  # seconds; a cold model takes longer than httpx's own 5 s
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20)
REQUEST_PICTURES = 32  # of one request of predict_many
REQUEST_BYTES = 16_000_000  # of one request of predict_many, unless a single picture is larger


@dataclass(frozen=True, slots=True)
class Options:
    """What `with_options` varies."""

    timeout: httpx.Timeout
    retries: Retries
    api_key: str | None

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}


class _Shared:
    """What both clients are made of: the address, the options, the requests."""

    base_url: str
    options: Options

    def _configure(
        self, base_url: str | None, api_key: str | None, timeout: float | httpx.Timeout | None, max_retries: int
    ) -> None:
        self.base_url = checked_url(base_url or os.environ.get("SIGHTLINE_URL") or DEFAULT_URL)
        key = api_key if api_key is not None else os.environ.get("SIGHTLINE_API_KEY")
        self.options = Options(to_timeout(timeout), Retries(max_retries), key)

    def _varied(self, timeout: float | httpx.Timeout | None, max_retries: int | None, api_key: str | None) -> Options:
        changed = self.options
        if timeout is not None:
            changed = replace(changed, timeout=to_timeout(timeout))
        if max_retries is not None:
            changed = replace(changed, retries=replace(changed.retries, most=max_retries))
        return changed if api_key is None else replace(changed, api_key=api_key)

    def _request(self, call: Call[T], http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        return http.build_request(
            call.method,
            self.base_url + call.path,
            params=dict(call.params) or None,
            content=call.content or None,
            headers={**call.headers, **self.options.headers()},
            timeout=self.options.timeout,
        )

    def _settle(self, call: Call[T], outcome: httpx.Response | httpx.TransportError) -> T:
        if isinstance(outcome, httpx.TransportError):
            raise error_from_transport(outcome, self.base_url) from outcome
        return call.result(outcome)


class Client(_Shared):
    """Calls a Sightline service.

    base_url: of the gateway; SIGHTLINE_URL where None, http://127.0.0.1:8000 where that is not set either.
    api_key: sent as `Authorization: Bearer`; SIGHTLINE_API_KEY where None. timeout: seconds for each wait, 60 by
    default, or an httpx.Timeout. max_retries: how often a request is sent again when the service cannot be reached, is
    overloaded or not ready, with growing and jittered pauses; a `Retry-After` is honoured.
    http_client: one of your own, with its proxies and certificates; you close it.

    Every method raises ServiceUnreachable, DeadlineExceeded, UnexpectedAnswer, and what the service answers: the errors
    of `serving.contract.errors` with their `status` and `request_id`. Threads may share a client.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float | httpx.Timeout | None = None,
        max_retries: int = 2,
        http_client: httpx.Client | None = None,
    ) -> None:
        self._configure(base_url, api_key, timeout, max_retries)
        self._http = http_client or httpx.Client(limits=LIMITS)
        self.faces = Faces(self.ask)
        self._owns_http = http_client is None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.base_url!r})"

    def close(self) -> None:
        """Give the connections back."""
        if self._owns_http:
            self._http.close()

    def with_options(
        self,
        *,
        timeout: float | httpx.Timeout | None = None,
        max_retries: int | None = None,
        api_key: str | None = None,
    ) -> "Client":
        """The same client with other options, over the same connections: `client.with_options(timeout=5).models()`."""
        other = Client(self.base_url, http_client=self._http)
        other.options = self._varied(timeout, max_retries, api_key)
        return other

    def predict(
        self,
        image: Picture,
        *,
        model: str,
        top: int = 5,
        version: int | None = None,
        label: str | None = None,
        min_score: float | None = None,
        probabilities: Probabilities = None,
    ) -> Prediction:
        """What the model says of one picture.

        top: how many labels to name. min_score: 0-1; a prediction below it has no label, and the reason `uncertain`.
        probabilities: `all` for those of every class. version, label: which version must answer, the newest where
        neither is given. Raises the picture's error, UnknownModel, UnknownVersion, InvalidParameter.
        """
        asked = Asked(model, top, version, label, min_score, probabilities)
        return calls.single(self.ask(calls.predict([to_upload(image)], asked)))

    def predict_many(
        self,
        images: Iterable[Picture],
        *,
        model: str,
        top: int = 5,
        version: int | None = None,
        label: str | None = None,
        min_score: float | None = None,
        probabilities: Probabilities = None,
    ) -> list[Prediction | Failed]:
        """What the model says of each picture, in their order; a picture that fails is a `Failed` with its error.


        The options are those of `predict`. Many pictures travel in one request. Raises where no picture can be
        answered: UnknownModel, ...
        """
        asked = Asked(model, top, version, label, min_score, probabilities)
        return self.predict_uploads(to_members(images), asked, REQUEST_PICTURES)

    def predict_uploads(
        self, members: Iterable[Upload | Failed], asked: Asked, per_request: int, most_bytes: int = REQUEST_BYTES
    ) -> list[Prediction | Failed]:
        """`predict_many` for bytes in hand; a Failed stays what it is.

        per_request, most_bytes: of the pictures of one request; a single one may be larger.
        """
        outcomes: list[Prediction | Failed] = []
        for group in requests_of(members, per_request, most_bytes):
            outcomes += self._predict_group(group, asked)
        return outcomes

    def models(self) -> list[Model]:
        """What the service serves."""
        return self.ask(calls.models())

    def model(self, name: str) -> Model:
        """One model and its card. Raises UnknownModel."""
        return self.ask(calls.model(name))

    def is_ready(self) -> bool:
        """Whether the service can answer predictions now. Never raises for one that cannot, and does not wait."""
        try:
            return self.with_options(max_retries=0).ask(calls.ready())
        except (Unavailable, ServiceUnreachable):
            return False

    def _predict_group(self, group: "Group", asked: Asked) -> list[Prediction | Failed]:
        if not group.uploads:
            return group.merged([])
        try:
            return group.merged(self.ask(calls.predict(group.uploads, asked)))
        except (BadImage, RequestTooLarge, TooManyImages) as exc:
            if len(group.uploads) == 1:
                return group.merged(calls.failed(group.uploads, exc))
            halves = (self._predict_group(half, asked) for half in group.halves())
            return group.merged([outcome for half in halves for outcome in half])

    def ask(self, call: Call[T]) -> T:
        """Make one request of `calls` or `faces`, again where it may be, and read its answer."""
        for attempt in itertools.count():
            outcome = self._send(call)
            delay = self.options.retries.delay(outcome, attempt, call.repeatable)
            if delay is None:
                break
            self._wait(delay)
        return self._settle(call, outcome)

    def _wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def _send(self, call: Call[T]) -> httpx.Response | httpx.TransportError:
        try:
            return self._http.send(self._request(call, self._http))
        except httpx.TransportError as exc:
            return exc


class AsyncClient(_Shared):
    """`Client`, to be awaited. The same arguments, methods, results and errors; http_client is an httpx.AsyncClient."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float | httpx.Timeout | None = None,
        max_retries: int = 2,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        self._configure(base_url, api_key, timeout, max_retries)
        self._http = http_client or httpx.AsyncClient(limits=LIMITS)
        self.faces = AsyncFaces(self.ask)
        self._owns_http = http_client is None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self.base_url!r})"

    async def close(self) -> None:
        """Give the connections back."""
        if self._owns_http:
            await self._http.aclose()

    def with_options(
        self,
        *,
        timeout: float | httpx.Timeout | None = None,
        max_retries: int | None = None,
        api_key: str | None = None,
    ) -> "AsyncClient":
        """See `Client.with_options`."""
        other = AsyncClient(self.base_url, http_client=self._http)
        other.options = self._varied(timeout, max_retries, api_key)
        return other

    async def predict(
        self,
        image: Picture,
        *,
        model: str,
        top: int = 5,
        version: int | None = None,
        label: str | None = None,
        min_score: float | None = None,
        probabilities: Probabilities = None,
    ) -> Prediction:
        """See `Client.predict`."""
        asked = Asked(model, top, version, label, min_score, probabilities)
        return calls.single(await self.ask(calls.predict([to_upload(image)], asked)))

    async def predict_many(
        self,
        images: Iterable[Picture],
        *,
        model: str,
        top: int = 5,
        version: int | None = None,
        label: str | None = None,
        min_score: float | None = None,
        probabilities: Probabilities = None,
    ) -> list[Prediction | Failed]:
        """See `Client.predict_many`."""
        asked = Asked(model, top, version, label, min_score, probabilities)
        return await self.predict_uploads(to_members(images), asked, REQUEST_PICTURES)

    async def predict_uploads(
        self, members: Iterable[Upload | Failed], asked: Asked, per_request: int, most_bytes: int = REQUEST_BYTES
    ) -> list[Prediction | Failed]:
        """See `Client.predict_uploads`."""
        outcomes: list[Prediction | Failed] = []
        for group in requests_of(members, per_request, most_bytes):
            outcomes += await self._predict_group(group, asked)
        return outcomes

    async def models(self) -> list[Model]:
        """See `Client.models`."""
        return await self.ask(calls.models())

    async def model(self, name: str) -> Model:
        """See `Client.model`."""
        return await self.ask(calls.model(name))

    async def is_ready(self) -> bool:
        """See `Client.is_ready`."""
        try:
            return await self.with_options(max_retries=0).ask(calls.ready())
        except (Unavailable, ServiceUnreachable):
            return False

    async def _predict_group(self, group: "Group", asked: Asked) -> list[Prediction | Failed]:
        if not group.uploads:
            return group.merged([])
        try:
            return group.merged(await self.ask(calls.predict(group.uploads, asked)))
        except (BadImage, RequestTooLarge, TooManyImages) as exc:
            if len(group.uploads) == 1:
                return group.merged(calls.failed(group.uploads, exc))
            halves = [await self._predict_group(half, asked) for half in group.halves()]
            return group.merged([outcome for half in halves for outcome in half])

    async def ask(self, call: Call[T]) -> T:
        """See `Client.ask`."""
        for attempt in itertools.count():
            outcome = await self._send(call)
            delay = self.options.retries.delay(outcome, attempt, call.repeatable)
            if delay is None:
                break
            await asyncio.sleep(delay)
        return self._settle(call, outcome)

    async def _send(self, call: Call[T]) -> httpx.Response | httpx.TransportError:
        try:
            return await self._http.send(self._request(call, self._http))
        except httpx.TransportError as exc:
            return exc


@dataclass(frozen=True, slots=True)
class Group:
    """The pictures of one request, and those that could not even be read, in the caller's order."""

    members: tuple[Upload | Failed, ...]

    @property
    def uploads(self) -> list[Upload]:
        return [member for member in self.members if isinstance(member, Upload)]

    def merged(self, outcomes: "list[Prediction | Failed]") -> "list[Prediction | Failed]":
        """The answers put back among the pictures that could not be read."""
        answers = iter(outcomes)
        return [member if isinstance(member, Failed) else next(answers) for member in self.members]

    def halves(self) -> "tuple[Group, Group]":
        """The readable pictures as two requests, where one was too much."""
        uploads = self.uploads
        middle = len(uploads) // 2
        return Group(tuple(uploads[:middle])), Group(tuple(uploads[middle:]))


def to_members(images: Iterable[Picture]) -> Iterator[Upload | Failed]:
    """Pictures as their bytes, read one by one as they are wanted; a file that cannot be read is a Failed."""
    for position, image in enumerate(images):
        try:
            yield to_upload(image, position)
        except UnreadableFile as exc:
            yield Failed(os.fspath(image) if isinstance(image, str | os.PathLike) else str(image), exc)


def requests_of(
    members: Iterable[Upload | Failed], per_request: int, most_bytes: int = REQUEST_BYTES
) -> Iterator[Group]:
    """Pictures as groups, each small enough for one request."""
    group: list[Upload | Failed] = []
    size = 0
    for member in members:
        weight = len(member.data) if isinstance(member, Upload) else 0
        if group and (len(group) >= per_request or size + weight > most_bytes):
            yield Group(tuple(group))
            group, size = [], 0
        group.append(member)
        size += weight
    if group:
        yield Group(tuple(group))


def checked_url(url: str) -> str:
    """The address without its last slash. Raises UsageError where it is not one of HTTP."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as exc:
        raise UsageError(f"{url!r} is not an address: {exc}", hint=f"Use one such as {DEFAULT_URL}.") from exc
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError(f"{url!r} is not an address of HTTP", hint=f"Use one such as {DEFAULT_URL}.")
    return url.rstrip("/")


def to_timeout(timeout: float | httpx.Timeout | None) -> httpx.Timeout:
    """Seconds, or httpx's own four, or the default."""
    if timeout is None:
        return TIMEOUT
    return timeout if isinstance(timeout, httpx.Timeout) else httpx.Timeout(timeout)
