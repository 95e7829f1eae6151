import socket
import time
from collections.abc import Iterator

import pytest

from serving.contract.errors import Overloaded
from serving.gateway.access.in_flight import CONTINUE, REFUSALS_PER_SECOND, REFUSED_AT_ONCE, InFlight, Slot
from serving.gateway.workers.shared import Shared


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection: the client's and ours."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    yield client, ours
    client.close()
    ours.close()


def test_one_more_than_allowed_is_refused_until_one_leaves() -> None:
    in_flight = InFlight(Shared(), 2)
    slots = [in_flight.enter() for _ in range(2)]
    with pytest.raises(Overloaded, match="SIGHTLINE_THREADS"):
        in_flight.enter()
    in_flight.leave(slots[0])
    in_flight.leave(slots[0])  # twice gives one place back
    in_flight.enter()
    with pytest.raises(Overloaded):
        in_flight.enter()


def test_the_bound_of_all_counts_the_others() -> None:
    shared = Shared()
    in_flight = InFlight(shared, 8, 3)
    shared.place = other = shared.take_place()
    shared.count(2)  # as another process would
    shared.place = shared.take_place()
    slot = in_flight.enter()
    for _ in range(3):  # who is refused does not count
        with pytest.raises(Overloaded, match="SIGHTLINE_MAX_IN_FLIGHT"):
            in_flight.enter()
    assert shared.in_flight() == 3
    shared.free_place(other)
    in_flight.enter()
    in_flight.leave(slot)
    assert shared.in_flight() == 1


def until_abandoned(in_flight: InFlight, slot: Slot) -> None:
    deadline = time.monotonic() + 20
    while not slot.is_abandoned:
        assert time.monotonic() < deadline
        in_flight.check_clients()
        time.sleep(0.01)


@pytest.mark.parametrize("with_unread_data", [False, True])  # with it, the client's kernel resets at once
def test_a_client_that_has_gone_counts_no_longer(
    pair: tuple[socket.socket, socket.socket], with_unread_data: bool
) -> None:
    client, ours = pair
    in_flight = InFlight(Shared(), 1)
    slot = in_flight.enter(ours, may_ask=True)
    client.sendall(b"its next request")
    in_flight.check_clients()
    assert not slot.is_abandoned
    if with_unread_data:
        ours.sendall(b"an earlier answer")
    client.close()
    until_abandoned(in_flight, slot)
    other = in_flight.enter()
    in_flight.leave(slot)  # it was free already
    with pytest.raises(Overloaded):
        in_flight.enter()
    in_flight.leave(other)


def test_a_slot_stays_taken_until_its_work_has_ended(pair: tuple[socket.socket, socket.socket]) -> None:
    client, ours = pair
    in_flight = InFlight(Shared(), 1)
    answered = in_flight.enter()
    release = in_flight.hold(answered)
    in_flight.leave(answered)  # 504, and its work goes on
    with pytest.raises(Overloaded):
        in_flight.enter()
    release()
    gone = in_flight.enter(ours, may_ask=True)
    release = in_flight.hold(gone)
    client.close()
    until_abandoned(in_flight, gone)
    with pytest.raises(Overloaded):
        in_flight.enter()
    release()
    in_flight.leave(gone)
    in_flight.enter()
    with pytest.raises(Overloaded):
        in_flight.enter()


def test_a_client_whose_answer_has_begun_is_sent_no_interim_answer(pair: tuple[socket.socket, socket.socket]) -> None:
    client, ours = pair
    in_flight = InFlight(Shared(), 1)
    slot = in_flight.enter(ours, may_ask=True)
    in_flight.hold(slot)
    client.shutdown(socket.SHUT_WR)
    in_flight.leave(slot)
    in_flight.check_clients()
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)


def test_a_client_that_closes_its_sending_side_only_still_counts(pair: tuple[socket.socket, socket.socket]) -> None:
    client, ours = pair
    in_flight = InFlight(Shared(), 1)
    slot = in_flight.enter(ours, may_ask=True)
    client.shutdown(socket.SHUT_WR)
    for _ in range(3):
        in_flight.check_clients()
        time.sleep(0.05)
    assert not slot.is_abandoned
    assert client.recv(100) == CONTINUE  # once


def test_a_client_of_http_1_0_is_sent_no_interim_answer(pair: tuple[socket.socket, socket.socket]) -> None:
    client, ours = pair
    in_flight = InFlight(Shared(), 1)
    in_flight.enter(ours)
    client.shutdown(socket.SHUT_WR)
    in_flight.check_clients()
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)


def test_refusals_wait_for_their_turn_and_find_room_by_then() -> None:
    slept: list[float] = []
    in_flight = InFlight(Shared(), 1, sleep=slept.append)
    in_flight.enter()
    for _ in range(REFUSED_AT_ONCE + 10):
        with pytest.raises(Overloaded):
            in_flight.enter()
    assert 8 <= len(slept) <= 11
    assert slept == sorted(slept)
    assert slept[-1] == pytest.approx(10 / REFUSALS_PER_SECOND, rel=0.5)


def test_a_refusal_that_waits_takes_a_place_that_gets_free() -> None:
    leaving: list[Slot] = []
    in_flight = InFlight(Shared(), 1, sleep=lambda _: [in_flight.leave(slot) for slot in leaving])
    slot = in_flight.enter()
    for _ in range(REFUSED_AT_ONCE + 50):
        assert in_flight.wait_for_refusal() is not None
    leaving.append(slot)
    in_flight.enter()
    with pytest.raises(Overloaded):
        in_flight.enter()


class Client:
    """A connection that notes its waits, in seconds."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.rests: list[float] = []

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def rest(self, seconds: float) -> None:
        self.rests.append(seconds)


def test_a_refused_connection_waits_by_itself_and_rests_before_its_next_request() -> None:
    slept: list[float] = []
    in_flight, client = InFlight(Shared(), 1, sleep=slept.append), Client()
    slot = in_flight.enter()
    for _ in range(REFUSED_AT_ONCE + 10):
        assert in_flight.wait_for_refusal(client) is not None
    assert client.pauses
    assert not slept
    assert set(client.rests) == {0.5}  # of the second that Retry-After says
    in_flight.leave(slot)
    assert in_flight.wait_for_refusal(client) is None
    assert len(client.rests) == REFUSED_AT_ONCE + 10  # none where there is room by then
