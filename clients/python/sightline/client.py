"""`Client`, and `AsyncClient` with the same methods to await."""

import asyncio
import itertools
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, TypeVar, Unpack

import httpx

from sightline import calls
from sightline.calls import Call, PredictArguments, PredictOptions
from sightline.errors import (
    TOO_MUCH,
    BadImage,
    BadRequest,
    ServiceUnreachable,
    Unavailable,
    UsageError,
    error_from_transport,
)
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
    """The options that `with_options` varies."""

    timeout: httpx.Timeout
    retries: Retries
    api_key: str | None

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}


class _Shared:
    """The parts of both clients that send nothing: the address, the options, the requests."""

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

    Every method raises the errors of `sightline.errors`: ServiceUnreachable, DeadlineExceeded, UnexpectedAnswer, and
    those that the service answers, with their `code`, `status` and `request_id`. Threads may share a client.
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
        """Close the connections."""
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

    def predict(self, image: Picture, **options: Unpack[PredictArguments]) -> Prediction:
        """Classify one picture.

        model: its name. top: how many labels to name, 5 by default. min_score: 0-1; a prediction below it has no label,
        and the reason `uncertain`. probabilities: `all` for those of every class. version, label: the version that must
        answer, the newest where neither is given. Raises BadImage, NotFound, BadRequest.
        """
        return calls.single(self.ask(calls.predict([to_upload(image)], PredictOptions(**options))))

    def predict_many(self, images: Iterable[Picture], **options: Unpack[PredictArguments]) -> list[Prediction | Failed]:
        """Classify pictures, in their order; a picture that fails is a `Failed` with its error.

        The options are those of `predict`. Many pictures travel in one request. Raises what concerns all of them, such
        as NotFound for the model.
        """
        return self.predict_uploads(to_members(images), PredictOptions(**options), REQUEST_PICTURES)

    def predict_uploads(
        self,
        members: Iterable[Upload | Failed],
        options: PredictOptions,
        per_request: int,
        most_bytes: int = REQUEST_BYTES,
    ) -> list[Prediction | Failed]:
        """`predict_many` for pictures that are read already; a Failed among them is passed on.

        per_request, most_bytes: limits of one request; a single picture may be larger.
        """
        outcomes: list[Prediction | Failed] = []
        for group in requests_of(members, per_request, most_bytes):
            outcomes += self._predict_group(group, options)
        return outcomes

    def models(self) -> list[Model]:
        """List the models of the service."""
        return self.ask(calls.models())

    def model(self, name: str) -> Model:
        """Read one model and its card. Raises NotFound."""
        return self.ask(calls.model(name))

    def is_ready(self) -> bool:
        """Tell whether the service can answer predictions now: one attempt, False where it cannot be reached."""
        try:
            return self.with_options(max_retries=0).ask(calls.ready())
        except (Unavailable, ServiceUnreachable):
            return False

    def _predict_group(self, group: "Group", options: PredictOptions) -> list[Prediction | Failed]:
        if not group.uploads:
            return group.merged([])
        try:
            return group.merged(self.ask(calls.predict(group.uploads, options)))
        except (BadImage, BadRequest) as exc:
            if not is_about_pictures(exc):
                raise
            if len(group.uploads) == 1:
                return group.merged(calls.failed(group.uploads, exc))
            halves = (self._predict_group(half, options) for half in group.halves())
            return group.merged([outcome for half in halves for outcome in half])

    def ask(self, call: Call[T]) -> T:
        """Send one request of `calls` or `faces`, again where that may help, and read its answer."""
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
        """Close the connections."""
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

    async def predict(self, image: Picture, **options: Unpack[PredictArguments]) -> Prediction:
        """See `Client.predict`."""
        return calls.single(await self.ask(calls.predict([to_upload(image)], PredictOptions(**options))))

    async def predict_many(
        self, images: Iterable[Picture], **options: Unpack[PredictArguments]
    ) -> list[Prediction | Failed]:
        """See `Client.predict_many`."""
        return await self.predict_uploads(to_members(images), PredictOptions(**options), REQUEST_PICTURES)

    async def predict_uploads(
        self,
        members: Iterable[Upload | Failed],
        options: PredictOptions,
        per_request: int,
        most_bytes: int = REQUEST_BYTES,
    ) -> list[Prediction | Failed]:
        """See `Client.predict_uploads`."""
        outcomes: list[Prediction | Failed] = []
        for group in requests_of(members, per_request, most_bytes):
            outcomes += await self._predict_group(group, options)
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

    async def _predict_group(self, group: "Group", options: PredictOptions) -> list[Prediction | Failed]:
        if not group.uploads:
            return group.merged([])
        try:
            return group.merged(await self.ask(calls.predict(group.uploads, options)))
        except (BadImage, BadRequest) as exc:
            if not is_about_pictures(exc):
                raise
            if len(group.uploads) == 1:
                return group.merged(calls.failed(group.uploads, exc))
            halves = [await self._predict_group(half, options) for half in group.halves()]
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
    """The pictures of one request, and those that could not be read, in the caller's order."""

    members: tuple[Upload | Failed, ...]

    @property
    def uploads(self) -> list[Upload]:
        return [member for member in self.members if isinstance(member, Upload)]

    def merged(self, outcomes: "list[Prediction | Failed]") -> "list[Prediction | Failed]":
        """Put the answers back among the pictures that could not be read."""
        answers = iter(outcomes)
        return [member if isinstance(member, Failed) else next(answers) for member in self.members]

    def halves(self) -> "tuple[Group, Group]":
        """Divide the readable pictures into two requests."""
        uploads = self.uploads
        middle = len(uploads) // 2
        return Group(tuple(uploads[:middle])), Group(tuple(uploads[middle:]))


def is_about_pictures(error: BadImage | BadRequest) -> bool:
    """Tell whether a request failed for its pictures, which may do better in smaller requests."""
    return isinstance(error, BadImage) or error.status == TOO_MUCH


def to_members(images: Iterable[Picture]) -> Iterator[Upload | Failed]:
    """Read pictures one by one as they are needed; a file that cannot be read is a Failed."""
    for position, image in enumerate(images):
        try:
            yield to_upload(image, position)
        except BadImage as exc:
            yield Failed(os.fspath(image) if isinstance(image, str | os.PathLike) else str(image), exc)


def requests_of(
    members: Iterable[Upload | Failed], per_request: int, most_bytes: int = REQUEST_BYTES
) -> Iterator[Group]:
    """Divide pictures into groups, each small enough for one request."""
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
    """Check an HTTP address and drop its last slash. Raises UsageError."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as exc:
        raise UsageError(f"{url!r} is not an address: {exc}", hint=f"Use one such as {DEFAULT_URL}.") from exc
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError(f"{url!r} is not an HTTP address.", hint=f"Use one such as {DEFAULT_URL}.")
    return url.rstrip("/")


def to_timeout(timeout: float | httpx.Timeout | None) -> httpx.Timeout:
    """Timeouts from seconds, from httpx's own four, or the default for None."""
    if timeout is None:
        return TIMEOUT
    return timeout if isinstance(timeout, httpx.Timeout) else httpx.Timeout(timeout)
