"""Many model servers: real ones, on real ports, that die and return."""

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from serving.backend.backends import Backends, RetryBudget, Tls, Watcher
from serving.backend.grpc_predictor import GrpcPredictor
from serving.backend.methods import PREDICT
from serving.backend.predictor import Call, ModelRef
from serving.backend.protos import wire_pb2 as wire
from serving.backend.targets import KEEPALIVE_SECONDS, addresses_of, check_target
from serving.contract.errors import DeadlineExceeded, ModelServerUnavailable, UsageError
from serving.runtimes.status import CallError
from tests.backend.certificates import Authority
from tests.backend.color_server import RED, ColorServer, handler
from tests.waiting import until

SECONDS = 20  # the longest that anything here may take
REQUEST = wire.PredictRequest(model_spec=wire.ModelSpec(name="m"))


@dataclass
class Names:
    """A server that answers its port. fails: what it answers instead. health: None where it has no such service."""

    port: int = 0
    host: str = "127.0.0.1"
    fails: grpc.StatusCode | None = None
    health: int | None = None
    credentials: grpc.ServerCredentials | None = None
    options: tuple[tuple[str, int], ...] = ()
    first_seconds: float = 0.0  # how long the first call takes
    calls: list[str] = field(default_factory=list)
    server: Any = None

    def start(self) -> "Names":
        self.server = grpc.server(ThreadPoolExecutor(8), options=(("grpc.so_reuseport", 0), *self.options))
        self.server.add_generic_rpc_handlers((handler(PREDICT, self._predict),))
        if self.health is not None:
            watch = grpc.unary_stream_rpc_method_handler(self._watch)
            row = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Watch": watch})
            self.server.add_generic_rpc_handlers((row,))
        address = f"{self.host}:{self.port}"
        self.port = (
            self.server.add_secure_port(address, self.credentials)
            if self.credentials
            else self.server.add_insecure_port(address)
        )
        self.server.start()
        return self

    def stop(self) -> None:
        self.server.stop(None).wait()

    def _predict(self, request: wire.PredictRequest, context: Any) -> wire.PredictResponse:
        self.calls.append(request.model_spec.name)
        if len(self.calls) == 1:
            time.sleep(self.first_seconds)
        if self.fails is not None:
            context.abort(self.fails, "as told")
        return wire.PredictResponse(model_spec=wire.ModelSpec(name=str(self.port)))

    def _watch(self, request: bytes, context: Any) -> Iterator[bytes]:  # noqa: ARG002
        said = None
        while context.is_active():
            if self.health != said:
                said = self.health
                yield bytes([8, said or 0])  # HealthCheckResponse(status=said)
            time.sleep(0.02)


@pytest.fixture
def servers() -> Iterator[Callable[..., Names]]:
    made: list[Names] = []

    def make(**options: Any) -> Names:
        made.append(Names(**options).start())
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def connect() -> Iterator[Callable[..., Backends]]:
    made: list[Backends] = []

    def make(targets: Sequence[str], **options: Any) -> Backends:
        made.append(Backends(targets, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def ask(backends: Backends, name: str = "x", timeout: float = 5.0) -> int:
    """The port of who answered."""
    request = wire.PredictRequest(model_spec=wire.ModelSpec(name=name))
    return int(backends.call(PREDICT, request, timeout=timeout).model_spec.name)


@dataclass
class Seen:
    """The last calls of a watcher."""

    states: dict[str, tuple[int, int]] = field(default_factory=dict)
    retries: int = 0

    def watcher(self) -> Watcher:
        return Watcher(lambda target, ready, known: self.states.update({target: (ready, known)}), self._retried)

    def _retried(self) -> None:
        self.retries += 1


def targets_of(*servers: Names) -> list[str]:
    return [f"{server.host}:{server.port}" for server in servers]


def test_several_take_turns(servers: Any, connect: Any) -> None:
    one, two = servers(), servers()
    seen = Seen()
    backends = connect(targets_of(one, two), watcher=seen.watcher())
    until(lambda: list(seen.states.values()) == [(1, 1), (1, 1)])
    assert Counter(ask(backends) for _ in range(20)) == {one.port: 10, two.port: 10}


def test_all_addresses_of_a_name_take_turns_beside_those_of_a_list(servers: Any, connect: Any) -> None:
    one = servers(host="127.0.0.1")
    two, three = servers(host="127.0.0.2", port=one.port), servers()
    name = f"models.example:{one.port}"
    found = {name: [f"ipv4:127.0.0.1:{one.port}", f"ipv4:127.0.0.2:{one.port}"]}
    seen = Seen()
    backends = connect(
        [name, f"127.0.0.1:{three.port}"],
        resolve=lambda target: found.get(target) or addresses_of(target),
        watcher=seen.watcher(),
    )
    until(lambda: seen.states == {name: (2, 2), f"127.0.0.1:{three.port}": (1, 1)})
    for _ in range(30):
        ask(backends)
    assert [len(server.calls) for server in (one, two, three)] == [10, 10, 10]


def test_a_real_name_is_resolved(servers: Any, connect: Any) -> None:
    server = servers()
    assert f"ipv4:127.0.0.1:{server.port}" in addresses_of(f"localhost:{server.port}")
    assert ask(connect([f"localhost:{server.port}"])) == server.port


def test_a_name_that_moves_is_followed(servers: Any, connect: Any) -> None:
    old, new = servers(), servers()
    found = [f"ipv4:127.0.0.1:{old.port}"]
    backends = connect(["models.example:1"], resolve=lambda target: list(found), refresh_seconds=0.02)  # noqa: ARG005
    assert ask(backends) == old.port
    found[:] = [f"ipv4:127.0.0.1:{new.port}"]
    until(lambda: ask(backends) == new.port)
    assert {ask(backends) for _ in range(10)} == {new.port}


def test_a_name_that_cannot_be_resolved_is_unavailable_until_it_can(servers: Any, connect: Any) -> None:
    server = servers()
    found: list[str] = []
    failures: list[str] = []

    def resolve(target: str) -> list[str]:
        if not found:
            failures.append(target)
            raise socket.gaierror(f"no {target}")
        return found

    backends = connect(["models.example:1"], resolve=resolve, refresh_seconds=0.02)
    with pytest.raises(CallError, match=r"UNAVAILABLE: no address of models\.example:1 is known"):
        ask(backends)
    found.append(f"ipv4:127.0.0.1:{server.port}")

    def answers() -> bool:
        with contextlib.suppress(CallError):
            return ask(backends) == server.port
        return False

    until(answers)
    before = len(failures)
    del found[:]
    until(lambda: len(failures) > before + 1)  # so the first of them has been dealt with
    assert ask(backends) == server.port  # what was known is kept


def test_a_call_that_finds_its_backend_unavailable_goes_to_another(servers: Any, connect: Any) -> None:
    bad, good = servers(fails=grpc.StatusCode.UNAVAILABLE), servers()
    seen = Seen()
    backends = connect(targets_of(bad, good), watcher=seen.watcher())
    until(lambda: list(seen.states.values()) == [(1, 1), (1, 1)])
    assert {ask(backends, str(number)) for number in range(10)} == {good.port}
    assert len(bad.calls) == 5
    assert len(good.calls) == 10
    assert seen.retries == 5


def test_a_call_goes_twice_at_most_and_other_errors_once(servers: Any, connect: Any) -> None:
    one, two = (servers(fails=grpc.StatusCode.UNAVAILABLE) for _ in range(2))
    seen = Seen()
    backends = connect(targets_of(one, two), watcher=seen.watcher())
    until(lambda: list(seen.states.values()) == [(1, 1), (1, 1)])
    with pytest.raises(CallError):
        ask(backends)
    assert len(one.calls) == len(two.calls) == 1
    one.fails = two.fails = grpc.StatusCode.INTERNAL
    with pytest.raises(CallError):
        ask(backends)
    assert len(one.calls) + len(two.calls) == 3


def test_retries_end_when_most_calls_fail(servers: Any, connect: Any) -> None:
    one, two = (servers(fails=grpc.StatusCode.UNAVAILABLE) for _ in range(2))
    seen = Seen()
    backends = connect(targets_of(one, two), watcher=seen.watcher(), budget=RetryBudget(tokens=10))
    until(lambda: list(seen.states.values()) == [(1, 1), (1, 1)])
    for _ in range(50):
        with pytest.raises(CallError):
            ask(backends)
    assert seen.retries == 4  # the tokens go from 10 to 5
    one.fails = two.fails = None
    for _ in range(20):
        ask(backends)
    one.fails = grpc.StatusCode.UNAVAILABLE
    with contextlib.suppress(CallError):
        ask(backends)
        ask(backends)
    assert seen.retries == 4  # ten answers give one token back


def test_a_backend_that_dies_and_returns_is_found_again(servers: Any, connect: Any) -> None:
    one, two = servers(), servers()
    seen = Seen()
    backends = connect(targets_of(one, two), watcher=seen.watcher())
    until(lambda: list(seen.states.values()) == [(1, 1), (1, 1)])
    one.stop()
    assert {ask(backends) for _ in range(20)} == {two.port}  # not one fails
    until(lambda: seen.states[f"127.0.0.1:{one.port}"] == (0, 1))
    one.start()
    until(lambda: seen.states[f"127.0.0.1:{one.port}"] == (1, 1))
    assert Counter(ask(backends) for _ in range(20)) == {one.port: 10, two.port: 10}


def test_the_only_backend_that_dies_and_returns_is_found_again(servers: Any, connect: Any) -> None:
    server = servers()
    backends = connect(targets_of(server))
    assert ask(backends) == server.port
    server.stop()
    with pytest.raises(CallError) as caught:
        ask(backends)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    server.start()

    def answers() -> bool:
        with contextlib.suppress(CallError):
            return ask(backends) == server.port
        return False

    until(answers)


def test_a_process_that_starts_beside_its_backend_waits_a_moment_for_the_first_contact(
    servers: Any, connect: Any
) -> None:
    server = servers()
    server.stop()
    backends = connect(targets_of(server))
    with pytest.raises(CallError):  # so it has tried, and pauses before it tries again
        ask(backends)
    server.start()
    assert ask(backends) == server.port


def test_a_backend_that_says_it_is_not_well_is_left_alone(servers: Any, connect: Any) -> None:
    well, ill = servers(health=1), servers(health=2)
    seen = Seen()
    backends = connect(targets_of(well, ill), watcher=seen.watcher())
    until(lambda: seen.states[f"127.0.0.1:{well.port}"] == (1, 1))
    assert {ask(backends) for _ in range(10)} == {well.port}
    ill.health = 1
    until(lambda: seen.states[f"127.0.0.1:{ill.port}"] == (1, 1))
    assert {ask(backends) for _ in range(10)} == {well.port, ill.port}


def test_nobody_waits_longer_than_he_wants_for_an_address_that_swallows_everything(connect: Any) -> None:
    with contextlib.closing(socket.socket()) as mute:  # it listens, and nobody ever speaks HTTP/2
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        backends = connect([f"127.0.0.1:{mute.getsockname()[1]}"])
        started = time.monotonic()
        with pytest.raises(CallError):
            ask(backends, timeout=0.2)
        predictor = GrpcPredictor(backends, timeout_seconds=30)
        with pytest.raises((DeadlineExceeded, ModelServerUnavailable)):
            predictor.describe(ModelRef("colors"), Call(time.monotonic() + 0.2))
        assert time.monotonic() - started < 10


def test_a_card_is_read_within_the_time_of_the_request() -> None:
    held = threading.Event()

    def never(request: Any, context: Any) -> wire.PredictResponse:  # noqa: ARG001
        held.wait(SECONDS)
        return wire.PredictResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((handler(PREDICT, never),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    backends = Backends([f"127.0.0.1:{port}"])
    with pytest.raises(DeadlineExceeded):
        GrpcPredictor(backends, timeout_seconds=SECONDS).describe(ModelRef("colors"), Call(time.monotonic() + 0.1))
    held.set()
    backends.close()
    server.stop(None).wait()


def test_while_a_version_reaches_one_backend_before_the_other_each_request_stays_with_one() -> None:
    running = []
    for versions in ({1: None}, {1: None, 2: None}):
        colors = ColorServer()
        colors.versions = dict.fromkeys(versions, next(iter(colors.versions.values())))
        server = grpc.server(ThreadPoolExecutor(4))
        server.add_generic_rpc_handlers((handler(PREDICT, colors.predict),))
        running.append((server, f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"))
        server.start()
    seen = Seen()
    backends = Backends([target for _, target in running], watcher=seen.watcher())
    until(lambda: list(seen.states.values()) == [(1, 1), (1, 1)])
    predictor = GrpcPredictor(backends, timeout_seconds=5)
    answered = Counter(predictor.predict(predictor.describe(ModelRef("colors")), RED).version for _ in range(10))
    assert answered == {1: 5, 2: 5}
    backends.close()
    for server, _ in running:
        server.stop(None).wait()


@pytest.mark.parametrize("target", ["", "host", "host:", ":8500", "host:x", "host:70000", "::1:8500", "http://host:1"])
def test_what_is_no_target_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        check_target(target)


@pytest.mark.parametrize("target", ["host:8500", "10.0.0.1:8500", "[::1]:8500", "unix:/run/models", "a-b.example:1"])
def test_what_is_a_target_is_taken(target: str) -> None:
    assert check_target(target) == target


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def test_tls_is_spoken_with_an_address_and_with_a_name(authority: Authority, servers: Any, connect: Any) -> None:
    for name in ("127.0.0.1", "localhost"):
        server = servers(credentials=grpc.ssl_server_credentials([authority.sign(name).pair()]))
        assert ask(connect([f"{name}:{server.port}"], tls=Tls(ca=authority.ca))) == server.port


def test_a_certificate_of_another_name_needs_the_setting(authority: Authority, servers: Any, connect: Any) -> None:
    server = servers(credentials=grpc.ssl_server_credentials([authority.sign("models.example").pair()]))
    target = f"127.0.0.1:{server.port}"
    with pytest.raises(CallError) as caught:
        ask(connect([target], tls=Tls(ca=authority.ca)))
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    named = Tls(ca=authority.ca, server_name="models.example")
    assert ask(connect([target], tls=named)) == server.port


def test_a_certificate_of_somebody_else_is_refused(
    authority: Authority, tmp_path: Path, servers: Any, connect: Any
) -> None:
    other = Authority(tmp_path / "other")
    server = servers(credentials=grpc.ssl_server_credentials([other.sign("127.0.0.1").pair()]))
    for tls in (Tls(ca=authority.ca), Tls()):
        with pytest.raises(CallError):
            ask(connect([f"127.0.0.1:{server.port}"], tls=tls))
    assert server.calls == []


def test_a_server_that_wants_to_know_its_clients_is_shown_a_certificate(
    authority: Authority, servers: Any, connect: Any
) -> None:
    own = authority.sign("gateway")
    server = servers(
        credentials=grpc.ssl_server_credentials(
            [authority.sign("127.0.0.1").pair()], authority.ca.read_bytes(), require_client_auth=True
        )
    )
    target = f"127.0.0.1:{server.port}"
    with pytest.raises(CallError):
        ask(connect([target], tls=Tls(ca=authority.ca)))
    assert ask(connect([target], tls=Tls(authority.ca, own.certificate, own.key))) == server.port


def test_what_tls_lacks_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="belong together"):
        Backends(["127.0.0.1:1"], tls=Tls(certificate=tmp_path / "c"))
    with pytest.raises(UsageError, match=r"nowhere\.pem"):
        Backends(["127.0.0.1:1"], tls=Tls(ca=tmp_path / "nowhere.pem"))


PING_SECONDS = 1.0  # gRPC's least
# One ping every 2.5 s, as the stock server permits one every 300; what ours permits, as it permits one every 10 s.
STOCK = (("grpc.http2.min_ping_interval_without_data_ms", int(2.5 * PING_SECONDS * 1000)),)
OURS = (
    ("grpc.http2.min_ping_interval_without_data_ms", int(0.3 * PING_SECONDS * 1000)),
    ("grpc.keepalive_permit_without_calls", 1),
)


@pytest.mark.integration  # it waits for real pings
@pytest.mark.parametrize(
    ("policy", "keepalive_seconds", "drops"),
    [
        (STOCK, 30 / 300 * 2.5, True),  # as it was: a ping every 30 s
        (STOCK, KEEPALIVE_SECONDS / 300 * 2.5, False),
        (OURS, PING_SECONDS, False),
    ],
    ids=["too often", "the stock server", "ours"],
)
def test_an_idle_connection_is_pinged_as_the_server_permits(
    servers: Callable[..., Names],
    policy: tuple[tuple[str, int], ...],
    keepalive_seconds: float,
    drops: bool,
) -> None:
    server = servers(options=policy, health=1)
    ready: list[int] = []
    watcher = Watcher(state=lambda target, up, known: ready.append(up))  # noqa: ARG005
    backends = Backends([f"127.0.0.1:{server.port}"], watcher=watcher, keepalive_seconds=keepalive_seconds)
    with contextlib.closing(backends):
        until(lambda: ready and ready[-1] == 1)
        connected = len(ready)
        time.sleep(4 * max(PING_SECONDS, keepalive_seconds) + 1)
        assert (len(ready) > connected) is drops
        assert backends.call(PREDICT, REQUEST, timeout=SECONDS)


@pytest.mark.integration  # it waits for real pings
def test_a_call_whose_connection_the_server_ends_is_made_again(servers: Callable[..., Names]) -> None:
    server = servers(options=STOCK, first_seconds=6 * PING_SECONDS)
    retried: list[bool] = []
    watcher = Watcher(retried=lambda: retried.append(True))
    backends = Backends([f"127.0.0.1:{server.port}"], watcher=watcher, keepalive_seconds=PING_SECONDS)
    with contextlib.closing(backends):
        assert backends.call(PREDICT, REQUEST, timeout=SECONDS).model_spec.name == str(server.port)
    assert retried == [True]


@pytest.mark.integration  # it waits for real pings
def test_a_unix_socket_is_never_pinged(tmp_path: Path) -> None:
    path = tmp_path / "grpc"
    server = grpc.server(ThreadPoolExecutor(2), options=STOCK)
    server.add_insecure_port(f"unix:{path}")
    server.start()
    ready: list[int] = []
    watcher = Watcher(state=lambda target, up, known: ready.append(up))  # noqa: ARG005
    backends = Backends([f"unix:{path}"], watcher=watcher, keepalive_seconds=PING_SECONDS)
    with contextlib.closing(backends):
        until(lambda: ready and ready[-1] == 1)
        time.sleep(4 * PING_SECONDS)
        assert ready[-1] == 1
        assert 0 not in ready[ready.index(1) :]
    server.stop(None).wait()
