"""Frames over real Unix sockets, between threads that stand for processes."""

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.contract.errors import PortTaken
from serving.local_calls import frames
from serving.local_calls.client import LocalClient, NotReached
from serving.local_calls.server import LocalServer

Listening = Callable[..., LocalServer]


def echo(data: bytes) -> bytes:
    return data


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def listening(path: Path) -> Iterator[Listening]:
    with contextlib.ExitStack() as stack:

        def listen(answer: Callable[[bytes], bytes] = echo) -> LocalServer:
            server = stack.enter_context(LocalServer(path, answer, what="echo", setting="ECHO_SOCKET"))
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.shutdown)
            return server

        yield listen


@pytest.fixture
def client(path: Path) -> Iterator[LocalClient]:
    made = LocalClient(str(path))
    yield made
    made.close()


@pytest.mark.parametrize("size", [0, 1, 100, 5_000_000])
def test_a_frame_of_any_size_comes_back(listening: Listening, client: LocalClient, size: int) -> None:
    listening()
    data = os.urandom(size)
    assert client.ask(data, 20) == data


def test_many_threads_get_their_own_answers_over_few_connections(listening: Listening, client: LocalClient) -> None:
    server, asked = listening(), [str(number).encode() for number in range(400)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda data: client.ask(data, 20), asked)) == asked
    assert 1 <= len(server._open) <= 8


def test_nobody_there_is_told_before_anything_is_sent(path: Path, client: LocalClient) -> None:
    with pytest.raises(NotReached):
        client.ask(b"x", 20)
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with pytest.raises(NotReached):
        client.ask(b"x", 20)


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one(listening: Listening, client: LocalClient) -> None:
    may_go_on = threading.Event()

    def answer(data: bytes) -> bytes:
        if data == b"slow":
            may_go_on.wait(20)
        return data

    listening(answer)
    with pytest.raises(TimeoutError):
        client.ask(b"slow", 0.1)
    may_go_on.set()
    assert client.ask(b"next", 20) == b"next"


def test_a_server_that_returns_is_found_again(listening: Listening, client: LocalClient) -> None:
    first = listening()
    assert client.ask(b"1", 20) == b"1"
    first.drain(5)
    first.server_close()
    with pytest.raises(NotReached):
        client.ask(b"2", 20)
    listening()
    assert client.ask(b"3", 20) == b"3"


def test_draining_ends_what_runs_and_what_rests_and_takes_nothing_new(
    listening: Listening, client: LocalClient, path: Path
) -> None:
    has_begun, may_go_on = threading.Event(), threading.Event()

    def answer(data: bytes) -> bytes:
        has_begun.set()
        may_go_on.wait(20)
        return data

    server, resting = listening(answer), socket.socket(socket.AF_UNIX)
    with ThreadPoolExecutor(2) as pool, resting:
        resting.connect(str(path))
        running = pool.submit(client.ask, b"running", 20)
        assert has_begun.wait(20)
        drained = pool.submit(server.drain, 20)
        assert resting.recv(1) == b""
        assert not drained.done()
        may_go_on.set()
        assert running.result(20) == b"running"
        drained.result(20)
    server.server_close()
    with pytest.raises(NotReached):
        client.ask(b"new", 20)


@pytest.mark.parametrize("sent", [struct.pack("<I", 2**32 - 1), struct.pack("<I", 10) + b"cut", b"\x01"])
def test_what_is_no_frame_ends_its_own_connection_alone(
    listening: Listening, client: LocalClient, path: Path, sent: bytes
) -> None:
    listening()
    assert client.ask(b"before", 20) == b"before"
    with socket.socket(socket.AF_UNIX) as hostile:
        hostile.settimeout(20)
        hostile.connect(str(path))
        hostile.sendall(sent)
        hostile.shutdown(socket.SHUT_WR)
        assert hostile.recv(1) == b""
    assert client.ask(b"after", 20) == b"after"


def test_an_answer_that_fails_ends_its_own_connection_alone(
    listening: Listening, client: LocalClient, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(data: bytes) -> bytes:
        if data == b"bad":
            raise ValueError("no such request")
        return data

    listening(answer)
    with pytest.raises(ConnectionError):
        client.ask(b"bad", 20)
    assert client.ask(b"good", 20) == b"good"
    deadline = time.monotonic() + 20
    while "no such request" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_frame_larger_than_a_length_can_say_is_refused_unsent(
    listening: Listening, client: LocalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening()
    monkeypatch.setattr(frames, "LARGEST", 10)
    with pytest.raises(ValueError, match="11 bytes; the largest has 10"):
        client.ask(bytes(11), 20)
    assert client.ask(bytes(10), 20) == bytes(10)


def test_a_path_belongs_to_one_server_and_one_user(listening: Listening, path: Path) -> None:
    server = listening()
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(PortTaken, match=r"Another echo listens.*ECHO_SOCKET"):
        listening()
    server.shutdown()
    server.socket.close()  # as kill -9 leaves it
    listening().server_close()
    assert not path.exists()


@pytest.mark.parametrize(("name", "said"), [("file", "is no socket"), ("x" * 200, "too long")])
def test_where_nothing_can_listen_it_is_said(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(PortTaken, match=said):
        LocalServer(tmp_path / name, echo, what="echo", setting="ECHO_SOCKET")
    assert (tmp_path / "file").read_bytes() == b"mine"
