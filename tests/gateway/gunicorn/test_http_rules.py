"""Odd requests, answered by the rules of HTTP: real gunicorn, real sockets."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.gateway_process import Gateway, running

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=["gevent", "gthread"])
def gateway(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("gateway"), workers="1", worker_class=request.param) as gateway:
        yield gateway


def ask(gateway: Gateway, sent: bytes) -> tuple[int, bytes, bytes]:
    """Status, head and body of the answer; the connection ends with it."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    while answer.startswith(b"HTTP/1.1 100 "):  # whether the client still reads
        answer = answer.partition(b"\r\n\r\n")[2]
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head, body


CHUNKED = b"POST /predict/x HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("body", [b"zz\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloo\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n"])
def test_a_malformed_chunk_is_400(gateway: Gateway, body: bytes) -> None:
    status, _, answer = ask(gateway, CHUNKED + body)
    assert (status, json.loads(answer)["code"]) == (400, "bad_request")


@pytest.mark.parametrize("line", [b"POST /predict/x", b"POST /v1/models/x:predict", b"DELETE /models/x"])
@pytest.mark.parametrize("body", [b"-1\r\n", b"5\r\nhello\r\n", b""], ids=["malformed", "cut off", "missing"])
def test_broken_chunks_are_400(gateway: Gateway, line: bytes, body: bytes) -> None:
    status, _, _ = ask(gateway, line + CHUNKED.removeprefix(b"POST /predict/x") + body)
    assert status == 400


@pytest.mark.parametrize("body", [b"-1\r\n", b"5\r\nhello\r\n"], ids=["malformed", "cut off"])
def test_the_body_of_a_get_is_not_read(gateway: Gateway, body: bytes) -> None:
    status, _, _ = ask(gateway, b"GET /v1/models/x" + CHUNKED.removeprefix(b"POST /predict/x") + body)
    assert status == 503  # no model server runs


def test_a_body_in_chunks_is_read(gateway: Gateway) -> None:
    status, _, answer = ask(gateway, CHUNKED + b"5\r\nhello\r\n0\r\n\r\n")
    assert (status, json.loads(answer)["code"]) == (503, "model_server_unavailable")


@pytest.mark.parametrize("name", [b"SCRIPT_NAME", b"Script_Name", b"PATH_INFO"])
@pytest.mark.parametrize("value", [b"/x", b"/healthz", b"x"])
def test_no_header_changes_the_path(gateway: Gateway, name: bytes, value: bytes) -> None:
    status, _, _ = ask(gateway, b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + name + b": " + value + b"\r\n\r\n")
    assert status == 200


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a b\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a/b\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: [::1]:80\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nHost:\r\n", 200),  # as for a target without an authority
        (b"GET /healthz HTTP/1.0\r\n", 200),
    ],
)
def test_http_1_1_needs_one_valid_host(gateway: Gateway, head: bytes, status: int) -> None:
    assert ask(gateway, head + b"\r\n")[0] == status


@pytest.mark.parametrize("path", [b"/v1/models/x", b"/models/x", b"/v2/models/x", b"/healthz?", b""])
def test_an_absolute_target_is_its_path(gateway: Gateway, path: bytes) -> None:
    request = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
    plain, absolute = (ask(gateway, request % target) for target in (path or b"/", b"http://a.example" + path))
    assert absolute[0] == plain[0] != 404
    if absolute[0] == 200:
        assert absolute[2] == plain[2]


def test_a_redirect_does_not_repeat_the_host(gateway: Gateway) -> None:
    status, head, body = ask(gateway, b"GET /v2//models?a=b HTTP/1.1\r\nHost: evil.example\r\n\r\n")
    assert status == 308
    assert b"\r\nLocation: /v2/models?a=b\r\n" in head + b"\r\n"
    assert b"evil" not in head + body


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_a_body_that_nobody_reads_ends_the_connection_and_its_client_gets_the_answer(
    tmp_path: Path, method: bytes
) -> None:
    with running(tmp_path, workers="1", max_request_bytes="1000000") as gateway:
        size = 3_000_000
        head = method + b" /models HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
        status, _, _ = ask(gateway, head + bytes(size))
    assert status == (503 if method == b"GET" else 413)
