"""Connections that are silent, slow or too many: real gunicorn, real sockets."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from serving.gateway.gunicorn.connections import host_of
from tests.gateway.gateway_process import Gateway, running

pytestmark = pytest.mark.integration

HASTY = """
from serving.gateway.gunicorn import connections
connections.Limits.__init__.__defaults__ = (1000, 0, 1.0, 75.0, 30.0, True)  # a second for a head
"""
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@contextlib.contextmanager
def connections(gateway: Gateway, count: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections that have sent this."""
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=20)
            opened.append(stack.enter_context(connection))
            connection.sendall(sent)
        yield opened


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
        return False
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


def health_seconds(gateway: Gateway) -> float:
    started = time.perf_counter()
    assert httpx.get(f"{gateway.url}/healthz", trust_env=False, timeout=20).status_code == 200
    return time.perf_counter() - started


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def asked(connection: socket.socket) -> None:
    """Ask on a connection, which is kept."""
    connection.sendall(GET)
    assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def test_more_silent_connections_than_there_is_room_for_hold_up_nobody(tmp_path: Path) -> None:
    with running(tmp_path, workers="1", max_connections="50") as gateway, connections(gateway, 1) as (rested,):
        asked(rested)
        for sent in (b"", b"GET / HT", b"POST /predict/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"):
            with connections(gateway, 150, sent) as silent:
                assert health_seconds(gateway) < 5
                until(lambda silent=silent: 20 <= sum(map(is_open, silent)) <= 25)  # half of all are one address's
        asked(rested)  # it had an answer before, so others went first


def test_one_address_cannot_take_all_connections(tmp_path: Path) -> None:
    settings = {"workers": "1", "max_connections": "50", "connections_per_address": "10"}
    with running(tmp_path, **settings) as gateway, connections(gateway, 30) as silent:
        assert health_seconds(gateway) < 5
        until(lambda: sum(map(is_open, silent)) <= 10)


def test_more_pipelining_connections_than_there_is_room_for_hold_up_nobody(tmp_path: Path) -> None:
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    with running(tmp_path, workers="1", max_connections="50") as gateway, connections(gateway, 150, 50 * ask):
        assert health_seconds(gateway) < 5


REFUSING = """
from serving.gateway.gunicorn.gevent_worker import Worker
plain = Worker.handle_request

def handle_request(self, listener_name, req, sock, addr):
    plain(self, listener_name, req, sock, addr)
    if req.path == "/healthz":
        sock.rest(2.0)  # as after a refusal

Worker.handle_request = handle_request
"""


@pytest.mark.parametrize(("proxies", "rests"), [("0", True), ("1", False)])
def test_a_refused_connection_rests_unless_a_proxy_shares_it(tmp_path: Path, proxies: str, rests: bool) -> None:
    with (
        running(tmp_path, REFUSING, workers="1", trusted_proxies=proxies) as gateway,
        connections(gateway, 1) as (connection,),
    ):
        asked(connection)
        started = time.monotonic()
        asked(connection)
        assert (time.monotonic() - started > 1.5) == rests


def test_a_proxy_may_take_all_connections(tmp_path: Path) -> None:
    settings = {"workers": "1", "max_connections": "50", "trusted_proxies": "1"}
    with running(tmp_path, **settings) as gateway, connections(gateway, 45) as silent:
        health_seconds(gateway)
        assert all(map(is_open, silent))


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\n"])
def test_a_head_that_does_not_come_ends_its_connection(tmp_path: Path, sent: bytes) -> None:
    with running(tmp_path, HASTY, workers="1") as gateway, connections(gateway, 2, sent) as (silent, slow):
        started = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() < started + 10:
                slow.sendall(b"X" if sent else b"G")
                time.sleep(0.2)
        assert time.monotonic() - started < 6
        assert silent.recv(1) == b""


def test_a_connection_rests_longer_than_a_head_may_take(tmp_path: Path) -> None:
    with running(tmp_path, HASTY, workers="1") as gateway, connections(gateway, 1) as (connection,):
        asked(connection)
        time.sleep(2)
        asked(connection)
        connection.sendall(GET[:9])  # from now on a head is awaited
        time.sleep(0.1)
        connection.sendall(GET[9:12])
        assert connection.recv(1) == b""


def test_a_client_that_does_not_read_its_answers_is_dropped(tmp_path: Path) -> None:
    with running(tmp_path, workers="1", send_seconds="1") as gateway, connections(gateway, 1) as (deaf,):
        ask = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        deaf.settimeout(2)
        started = time.monotonic()
        with pytest.raises(ConnectionError):  # noqa: PT012 - until the answers fill all buffers
            while time.monotonic() < started + 30:
                with contextlib.suppress(TimeoutError):
                    deaf.sendall(100 * ask)
        assert "Traceback" not in gateway.log.read_text()


@pytest.mark.parametrize(
    ("address", "host"),
    [
        (("192.0.2.1", 80), "192.0.2.1"),
        (("2001:db8:1:2:3::4", 80, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 80, 0, 0), "fe80::/64"),
        (("::ffff:192.0.2.1", 80, 0, 0), "192.0.2.1"),
        ("", ""),
    ],
)
def test_an_ipv6_network_counts_as_one_address(address: object, host: str) -> None:
    assert host_of(address) == host
