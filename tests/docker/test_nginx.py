"""docker/nginx.conf with Debian's nginx, in front of gateways whose answers one can choose."""

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from benchmarks.cluster import nginx_node
from benchmarks.services import free_port

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        shutil.which("nginx") is None, reason="nginx is not installed (Debian: apt install nginx-light)"
    ),
]

ANSWER = b"HTTP/1.1 %d X\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


@dataclass
class FakeGateway:
    """Answers each request, or ends without an answer. status: of its answers; 0: it dies of a request."""

    status: int = 200
    asked: int = 0
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                with connection:
                    request = connection.recv(65536)
                    if b"/healthz" in request:
                        connection.sendall(ANSWER % 200)
                        continue
                    self.asked += 1
                    if self.status:
                        connection.sendall(ANSWER % self.status)


@pytest.fixture
def gateways() -> Iterator[list[FakeGateway]]:
    made = [FakeGateway() for _ in range(3)]
    for gateway in made:
        threading.Thread(target=gateway.run, daemon=True).start()
    yield made
    for gateway in made:
        with contextlib.suppress(OSError):
            gateway.listener.shutdown(socket.SHUT_RDWR)
        gateway.listener.close()


@pytest.fixture
def url(gateways: list[FakeGateway], tmp_path: Path) -> Iterator[str]:
    port = free_port()
    node = nginx_node(tmp_path, port, [gateway.port for gateway in gateways])
    node.start()
    node.wait_until_ready()
    yield f"http://127.0.0.1:{port}"
    assert node.process is not None
    node.process.terminate()
    node.process.wait(20)


def post(url: str, path: str = "/predict/x") -> int:
    return httpx.post(url + path, content=b"a photo", timeout=30, trust_env=False).status_code


def test_a_request_that_ends_a_gateway_does_not_reach_the_next(url: str, gateways: list[FakeGateway]) -> None:
    for gateway in gateways:
        gateway.status = 0
    assert post(url) == 502
    assert sum(gateway.asked for gateway in gateways) == 1


@pytest.mark.parametrize("refusing", [1, 2])
def test_a_request_that_a_gateway_refuses_goes_to_another(url: str, gateways: list[FakeGateway], refusing: int) -> None:
    for gateway in gateways[:refusing]:
        gateway.status = 503
    assert {post(url) for _ in range(6)} == {200}
    assert all(gateway.asked for gateway in gateways)


def test_when_all_refuse_the_client_is_told(url: str, gateways: list[FakeGateway]) -> None:
    for gateway in gateways:
        gateway.status = 503
    assert post(url) == 503
    assert sum(gateway.asked for gateway in gateways) == 3


def test_a_gateway_that_is_not_there_is_done_without(url: str, gateways: list[FakeGateway]) -> None:
    gateways[0].listener.shutdown(socket.SHUT_RDWR)
    gateways[0].listener.close()
    time.sleep(0.1)
    assert {post(url) for _ in range(6)} == {200}


def test_a_change_of_the_known_faces_happens_once(url: str, gateways: list[FakeGateway]) -> None:
    for gateway in gateways:
        gateway.status = 0
    assert post(url, "/faces/people/ann") == 502
    assert sum(gateway.asked for gateway in gateways) == 1
