"""gunicorn's gevent workers with slow clients, clients that disconnect, and a stop."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.gateway.gateway_process import ROOT, Gateway, running, wait_until_refused

pytestmark = pytest.mark.integration

HEAD = b"POST /predict/colors HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 10\r\n\r\n"
UNREACHED = "model_server_unavailable"  # the answer that says: this request was dealt with


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with running(tmp_path, workers="1", threads="2", upload_seconds="1.5") as gateway:
        yield gateway


def uploading(gateway: Gateway, sent: bytes = HEAD + b"01234") -> socket.socket:
    """A client that has sent half of its request."""
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=20)
    connection.sendall(sent)
    return connection


def answer_of(connection: socket.socket) -> bytes:
    """All that comes until the connection is closed."""
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_slow_uploads_keep_nobody_waiting_and_are_ended(gateway: Gateway) -> None:
    slow = [uploading(gateway) for _ in range(20)]
    assert httpx.get(f"{gateway.url}/models", trust_env=False).json()["code"] == UNREACHED
    for connection in slow:
        answer = answer_of(connection)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"upload_too_slow"' in answer


def test_clients_that_go_away_leave_their_place(gateway: Gateway) -> None:
    for sent in (HEAD, HEAD + b"01234", HEAD + b"0123456789"):
        for _ in range(5):
            uploading(gateway, sent).close()
    deadline = time.monotonic() + 20
    while httpx.get(f"{gateway.url}/models", trust_env=False).json()["code"] != UNREACHED:
        assert time.monotonic() < deadline
    assert "Traceback" not in gateway.log.read_text()


def test_a_stop_ends_requests_on_their_way_and_then_connections_that_rest(gateway: Gateway) -> None:
    with httpx.Client(trust_env=False) as resting:
        resting.get(f"{gateway.url}/healthz")
        half = uploading(gateway)
        wait_for_the_second_half(gateway)
        gateway.process.terminate()
        wait_until_refused(gateway)
        half.sendall(b"56789")
        answer = answer_of(half)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert UNREACHED.encode() in answer
    assert gateway.process.wait(20) == 0
    assert "graceful timeout" not in gateway.log.read_text()


def wait_for_the_second_half(gateway: Gateway) -> None:
    """Until a request that came later than the slow one has been answered: the slow one is being read by then."""
    httpx.get(f"{gateway.url}/healthz", trust_env=False)


def connections_of(pid: int, port: int) -> int:
    """Count the established connections to the port that a process holds."""
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if int(row[1].split(":")[1], 16) == port and row[3] == "01"}
    held = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir()}
    return sum(f"socket:[{inode}]" in held for inode in inodes)


PATIENT = """
from serving.gateway.gunicorn import gevent_worker
gevent_worker.GIVE_WAY_SECONDS = 3.0  # 5 milliseconds are too few where tests keep all CPUs busy
"""


def test_a_worker_with_more_connections_lets_another_take_the_next(tmp_path: Path) -> None:
    with running(tmp_path, before=PATIENT, workers="2") as gateway, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(trust_env=False, timeout=30)) for _ in range(10)]

        def ask(client: httpx.Client) -> None:
            assert client.get(f"{gateway.url}/healthz").status_code == 200

        one, other = gateway.workers()
        os.kill(one, signal.SIGSTOP)  # a worker that hangs keeps nobody from being answered
        with ThreadPoolExecutor(5) as pool:
            list(pool.map(ask, clients[:5]))
        assert connections_of(other, gateway.port) == 5
        os.kill(one, signal.SIGCONT)
        for client in clients[5:]:
            ask(client)
        assert [connections_of(pid, gateway.port) for pid in (one, other)] == [5, 5]


def test_merging_keeps_its_promises_under_gevent() -> None:
    """The suite of threads once more, its threads being greenlets."""
    suite = "tests/backend/test_merging_predictor.py"
    command = [sys.executable, "-m", "gevent.monkey", "--module", "pytest", suite]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout
