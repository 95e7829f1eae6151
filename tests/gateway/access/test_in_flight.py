import socket
from collections.abc import Iterator

import pytest

from serving.contract.errors import Overloaded
from serving.gateway.access.in_flight import InFlight
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


def test_a_client_that_has_gone_counts_no_longer(pair: tuple[socket.socket, socket.socket]) -> None:
    client, ours = pair
    in_flight = InFlight(Shared(), 1)
    slot = in_flight.enter(ours)
    client.sendall(b"its next request")
    in_flight.check_clients()
    assert not slot.is_abandoned
    client.close()
    in_flight.check_clients()
    assert slot.is_abandoned
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
    gone = in_flight.enter(ours)
    release = in_flight.hold(gone)
    client.close()
    in_flight.check_clients()
    assert gone.is_abandoned
    with pytest.raises(Overloaded):
        in_flight.enter()
    release()
    in_flight.leave(gone)
    in_flight.enter()
    with pytest.raises(Overloaded):
        in_flight.enter()
