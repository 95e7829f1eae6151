"""Model servers: resolve their names, watch which of them answer, call them in turn.

Each address has a channel of its own: so the state of each is known, a retry goes to another one for certain, and
a name may have many addresses, and other ones while it runs. Connecting, reconnecting and health checks are gRPC's.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from serving.backend.methods import Method, Request, Response
from serving.backend.targets import KEEPALIVE_SECONDS, UNIX, addresses_of, host_of, is_name
from serving.contract.errors import UsageError
from serving.runtimes.status import CallError, from_grpc

log = logging.getLogger(__name__)

# grpc/doc/health-checking.md: only round_robin looks at health. A server without the service counts as healthy.
SERVICE_CONFIG = json.dumps(
    {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}, separators=(",", ":")
)
CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_send_message_length", -1),  # gRPC's default of 4 MiB is seven photos of 448 x 448
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),  # a model server that restarts is found at once;
    ("grpc.max_reconnect_backoff_ms", 250),  # gRPC's own back-off grows to two minutes
    ("grpc.min_reconnect_backoff_ms", 2000),  # in effect the timeout of one attempt to connect
    ("grpc.service_config", SERVICE_CONFIG),
)
TURNED_AWAY = ("GOAWAY", "Too many pings")  # in the text of a call whose connection the server ended
FIRST_CONTACT_SECONDS = 0.5  # two pauses between attempts: when the first worker says "ready", the others soon are
REFRESH_SECONDS = 5.0  # how often names are resolved again
RETRY_TOKENS = 100.0  # gRFC A6: a failure costs a token, a success gives a tenth of one;
TOKEN_RATIO = 0.1  # with half of them gone nothing is retried
READY = grpc.ChannelConnectivity.READY
HOPEFUL = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)
CLOSE_SECONDS = 30.0  # for the calls of an address that is gone to end


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS towards the model servers, as PEM files. ca: the authority of their certificates; None: gRPC's own list.

    certificate, key: shown to a server that asks for a client certificate; both or none.
    server_name: the name that the server's certificate must hold; "": the target's host.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class Watcher:
    """Callbacks for metrics. state: target, number of its addresses that answer, number of its addresses."""

    state: Callable[[str, int, int], None] = lambda target, ready, known: None  # noqa: ARG005
    retried: Callable[[], None] = lambda: None


@dataclass(slots=True, eq=False)
class _Backend:
    """One address of a target. `state` is guarded by the pool's condition."""

    target: str
    address: str
    channel: grpc.Channel
    state: grpc.ChannelConnectivity = grpc.ChannelConnectivity.IDLE
    calls: dict[str, Any] = field(default_factory=dict)

    def send(
        self,
        method: Method[Request, Response],
        request: Request,
        timeout: float,
        metadata: Sequence[tuple[str, str]],
    ) -> Response:
        """Call a method here. timeout: seconds. Raises CallError."""
        call = self.calls.get(method.path)
        if call is None:
            call = self.calls[method.path] = self.channel.unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        try:
            response: Response = call(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as exc:
            raise from_grpc(exc) from exc
        return response


class RetryBudget:
    """A budget of retries, so that they never keep an overloaded server down: gRFC A6, retryThrottling."""

    def __init__(self, tokens: float = RETRY_TOKENS, ratio: float = TOKEN_RATIO) -> None:
        self._most = self._tokens = tokens
        self._ratio = ratio
        self._lock = threading.Lock()

    def succeeded(self) -> None:
        """Note a call that was answered."""
        with self._lock:
            self._tokens = min(self._most, self._tokens + self._ratio)

    def may_retry(self) -> bool:
        """Note a call that failed; return True where it may be retried."""
        with self._lock:
            self._tokens = max(0.0, self._tokens - 1)
            return self._tokens > self._most / 2


class Backends:
    """Call model servers in turn. Safe to share between threads; one per process, made after the fork.

    targets: `host:port`, where host may be a name of many addresses, all of which are used, or `unix:/path`.
    refresh_seconds: how often names are resolved again. budget: of retries. keepalive_seconds: how often an idle
    connection is pinged, 0 for never; a Unix socket never is.
    """

    def __init__(
        self,
        targets: Sequence[str],
        *,
        tls: Tls | None = None,
        watcher: Watcher | None = None,
        refresh_seconds: float = REFRESH_SECONDS,
        resolve: Callable[[str], Sequence[str]] | None = None,
        budget: RetryBudget | None = None,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
    ) -> None:
        self._keepalive_seconds = keepalive_seconds
        self.targets = tuple(targets)
        self._tls = tls
        self._credentials = _credentials(tls)
        self._watcher = watcher or Watcher()
        self._resolve = resolve or addresses_of
        self._budget = budget or RetryBudget()
        self._changed = threading.Condition()
        self._backends: dict[tuple[str, str], _Backend] = {}
        self._turn = 0
        self._has_connected = False
        self._closed = threading.Event()
        self._wanted = threading.Event()
        self._refresh_seconds = refresh_seconds
        self._refresh()
        if any(is_name(target) for target in targets):
            threading.Thread(target=self._refresh_for_ever, name="resolve backends", daemon=True).start()

    def __str__(self) -> str:
        return ", ".join(self.targets)

    def close(self) -> None:
        """Close the connections."""
        self._closed.set()
        self._wanted.set()
        with self._changed:
            backends = list(self._backends.values())
            self._backends.clear()
            self._changed.notify_all()
        for backend in backends:
            backend.channel.close()

    def choose(self, timeout: float) -> str:
        """Return the address whose turn it is, for `call` to prefer. Wait up to `timeout` seconds for one that answers.

        While none answers, one that does not. Raises CallError (UNAVAILABLE) where no address is known.
        """
        return self._ready_one("", time.monotonic() + timeout).address

    def call(
        self,
        method: Method[Request, Response],
        request: Request,
        *,
        timeout: float,
        metadata: Sequence[tuple[str, str]] = (),
        prefer: str = "",
    ) -> Response:
        """Call a method that may safely be called twice. UNAVAILABLE is tried once more, at another address.

        Where there is no other, a call whose connection the server ended is tried once more over a new one.

        timeout: seconds for all of it. prefer: an address to ask if it answers. Raises CallError.
        """
        deadline = time.monotonic() + timeout
        backend = self._ready_one(prefer, deadline)
        try:
            answer = backend.send(method, request, max(0.0, deadline - time.monotonic()), metadata)
        except CallError as exc:
            if exc.code is not grpc.StatusCode.UNAVAILABLE:
                raise
            self._wanted.set()
            other = None
            if self._budget.may_retry():
                other = self._other_than(backend) or (
                    backend if any(text in exc.message for text in TURNED_AWAY) else None
                )
            if other is None:
                raise
            self._watcher.retried()
            answer = other.send(method, request, max(0.0, deadline - time.monotonic()), metadata)
        self._budget.succeeded()
        return answer

    def _ready_one(self, prefer: str, deadline: float) -> _Backend:
        """Choose the backend to call: one that answers. While none does, wait for those that are being connected to.

        A process that never had a connection waits a moment for one even after attempts have failed: it starts beside
        its model server, and another process may have been told already that this is ready.
        """
        patience = min(deadline, 0 if self._has_connected else time.monotonic() + FIRST_CONTACT_SECONDS)
        with self._changed:
            while True:
                known = list(self._backends.values())
                ready = [each for each in known if each.state is READY]
                found = next((each for each in ready if each.address == prefer), None) or self._next(ready)
                if found is not None:
                    return found
                is_hopeful = any(each.state in HOPEFUL for each in known)
                left = (deadline if is_hopeful else patience) - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                found = self._next(known)  # the call fails at once and says why
                if found is not None:
                    return found
                raise CallError(grpc.StatusCode.UNAVAILABLE, f"no address of {self} is known")

    def _other_than(self, failed: _Backend) -> _Backend | None:
        with self._changed:
            others = [each for each in self._backends.values() if each.state is READY and each is not failed]
            return (
                others[self._turn % len(others)] if others else None
            )  # without taking a turn: the next call keeps its own

    def _next(self, backends: Sequence[_Backend]) -> _Backend | None:
        """Take the next one in turn. The condition is held."""
        self._turn += 1
        return backends[self._turn % len(backends)] if backends else None

    def _refresh_for_ever(self) -> None:
        while not self._closed.is_set():
            self._wanted.wait(self._refresh_seconds)
            self._wanted.clear()
            if not self._closed.is_set():
                self._refresh()
                self._closed.wait(min(1.0, self._refresh_seconds))  # hundreds of failures cause one look-up a second

    def _refresh(self) -> None:
        """Resolve the targets again: connect to new addresses, drop those that are gone."""
        wanted: dict[tuple[str, str], None] = {}
        for target in self.targets:
            try:
                found: Iterable[str] = self._resolve(target)
            except OSError as exc:  # keep the last known addresses
                log.warning("the backend %s cannot be resolved: %s", target, exc)
                found = [address for known, address in self._backends if known == target]
            wanted |= dict.fromkeys((target, address) for address in found)
        with self._changed:
            if self._closed.is_set():
                return
            gone = [self._backends.pop(key) for key in list(self._backends) if key not in wanted]
            new = [_Backend(*key, self._open(*key)) for key in wanted if key not in self._backends]
            self._backends |= {(each.target, each.address): each for each in new}
            self._changed.notify_all()
        for backend in new:
            backend.channel.subscribe(self._listener(backend), try_to_connect=True)
        for backend in gone:
            later = threading.Timer(CLOSE_SECONDS, backend.channel.close)
            later.daemon = True
            later.start()
        for target in {each.target for each in (*new, *gone)}:
            self._tell(target)

    def _open(self, target: str, address: str) -> grpc.Channel:
        options = CHANNEL_OPTIONS
        if self._keepalive_seconds > 0 and not address.startswith(UNIX):
            options = (
                *CHANNEL_OPTIONS,
                ("grpc.keepalive_time_ms", int(self._keepalive_seconds * 1000)),
                ("grpc.http2.max_pings_without_data", 0),  # no limit: gRPC's own is two, then one a minute
            )
        if self._credentials is None:
            return grpc.insecure_channel(address, options)
        assert self._tls is not None
        name = self._tls.server_name or host_of(target)
        options = (*options, ("grpc.ssl_target_name_override", name), ("grpc.default_authority", name))
        return grpc.secure_channel(address, self._credentials, options)

    def _listener(self, backend: _Backend) -> Callable[[grpc.ChannelConnectivity], None]:
        def changed(state: grpc.ChannelConnectivity) -> None:
            with self._changed:
                before, backend.state = backend.state, state
                self._has_connected |= state is READY
                self._changed.notify_all()
            if (before is READY) != (state is READY) and not self._closed.is_set():
                verb = "answers" if state is READY else "does not answer"
                log.log(logging.INFO if state is READY else logging.WARNING, "the backend %s %s", backend.address, verb)
                self._tell(backend.target)

        return changed

    def _tell(self, target: str) -> None:
        with self._changed:
            states = [each.state for each in self._backends.values() if each.target == target]
        self._watcher.state(target, states.count(READY), len(states))


def _credentials(tls: Tls | None) -> grpc.ChannelCredentials | None:
    if tls is None:
        return None
    if (tls.certificate is None) != (tls.key is None):
        raise UsageError("A client certificate and its key belong together; one of them is given.")
    parts = [None if path is None else _pem(path) for path in (tls.ca, tls.key, tls.certificate)]
    return grpc.ssl_channel_credentials(*parts)


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise UsageError(f"The PEM file {path} cannot be read: {exc.strerror}.") from exc
