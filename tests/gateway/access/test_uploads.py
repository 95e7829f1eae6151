import io
import socket
import threading
from collections.abc import Iterator

import pytest
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from serving.contract.errors import Overloaded
from serving.gateway.access.uploads import STEP, Uploads
from serving.gateway.workers.memory import FreedMemory

LIMIT = 10 * STEP


class Stalled:
    """A body that gives all it has and then waits for its client, whose socket it is. began: it waits."""

    def __init__(self, has: int) -> None:
        self.client, self.ours = socket.socketpair()
        self.client.settimeout(20)
        self._has = has
        self.began = threading.Event()

    def read(self, size: int) -> bytes:
        if self._has >= size:
            self._has -= size
            return bytes(size)
        self.began.set()
        return self.ours.recv(size)  # b"" when the connection has been shut down


@pytest.fixture
def stalled() -> Iterator[list[Stalled]]:
    bodies = [Stalled(2 * STEP) for _ in range(2)]
    yield bodies
    for body in bodies:
        body.client.close()
        body.ours.close()


@pytest.mark.parametrize("size", [0, 1, STEP, STEP + 1, 3 * STEP, LIMIT])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_is_read_whole(size: int, is_chunked: bool) -> None:
    uploads = Uploads(2 * LIMIT, FreedMemory())
    body = bytes(range(256)) * (size // 256 + 1)
    data, _ = uploads.receive(io.BytesIO(body[:size]), None if is_chunked else size, LIMIT, None)
    assert data == body[:size]


@pytest.mark.parametrize("length", [None, LIMIT + 1])
def test_a_body_over_the_limit_is_refused(length: int | None) -> None:
    uploads = Uploads(2 * LIMIT, FreedMemory())
    with pytest.raises(RequestEntityTooLarge):
        uploads.receive(io.BytesIO(bytes(LIMIT + 1)), length, LIMIT, None)
    uploads.receive(io.BytesIO(bytes(LIMIT)), LIMIT, LIMIT, None)


@pytest.mark.parametrize("length", [10, 3 * STEP])
def test_a_body_that_is_cut_off_is_refused(length: int) -> None:
    with pytest.raises(ClientDisconnected):
        Uploads(LIMIT, FreedMemory()).receive(io.BytesIO(bytes(length - 1)), length, LIMIT, None)


def test_requests_hold_their_bytes_until_they_end() -> None:
    uploads = Uploads(LIMIT, FreedMemory())
    first = uploads.receive(io.BytesIO(bytes(LIMIT - 10)), LIMIT - 10, LIMIT, None)[1]
    for _ in range(2):
        with pytest.raises(Overloaded, match="SIGHTLINE_MAX_BYTES_IN_FLIGHT"):
            uploads.receive(io.BytesIO(bytes(11)), 11, LIMIT, None)
    uploads.receive(io.BytesIO(bytes(10)), 10, LIMIT, None)
    uploads.give_back(first)
    uploads.give_back(first)  # twice counts once
    uploads.receive(io.BytesIO(bytes(LIMIT - 10)), LIMIT - 10, LIMIT, None)
    with pytest.raises(Overloaded):
        uploads.receive(io.BytesIO(b"1"), 1, LIMIT, None)


def test_the_upload_that_has_not_moved_for_longest_gives_way(stalled: list[Stalled]) -> None:
    uploads = Uploads(7 * STEP, FreedMemory())  # two that stall hold 3 of them each
    outcomes: list[str] = []

    def send(body: Stalled, name: str) -> None:
        try:
            uploads.receive(body, 5 * STEP, LIMIT, body.ours)
        except (Overloaded, ClientDisconnected) as exc:
            outcomes.append(f"{name} {type(exc).__name__}")

    threads = [threading.Thread(target=send, args=row) for row in zip(stalled, ("first", "second"), strict=True)]
    for thread, body in zip(threads, stalled, strict=True):
        thread.start()
        assert body.began.wait(20)
    uploads.receive(io.BytesIO(bytes(3 * STEP)), 3 * STEP, LIMIT, None)
    threads[0].join(20)
    assert outcomes == ["first Overloaded"]
    stalled[1].client.close()
    threads[1].join(20)
    assert outcomes == ["first Overloaded", "second ClientDisconnected"]


def test_the_bytes_of_requests_that_ended_count_as_freed() -> None:
    trimmed = threading.Event()
    uploads = Uploads(100_000_000, FreedMemory(trimmed.set))
    for _ in range(4):
        uploads.give_back(uploads.receive(io.BytesIO(bytes(10_000_000)), 10_000_000, 100_000_000, None)[1])
    assert trimmed.wait(20)
