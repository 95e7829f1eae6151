import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.contract.errors import Overloaded, UsageError
from serving.gateway.access.in_flight import InFlight
from serving.gateway.access.keys import KeyRing, new_key
from serving.gateway.settings import Settings, require_safe
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


def test_a_file_of_keys_counts_beside_the_settings(tmp_path: Path) -> None:
    file, shared = tmp_path / "keys", Shared()
    file.write_text(f"\n# all of them\n{new_key('one', ['predict'])[1]} # here\n")
    ring = KeyRing([new_key("two", ["faces"])[1]], file, lambda: shared.generation)
    assert {key.name for key in ring.current()} == {"one", "two"}
    file.write_text(new_key("three", ["admin"])[1])
    assert {key.name for key in ring.current()} == {"one", "two"}
    shared.renew()
    assert {key.name for key in ring.current()} == {"two", "three"}
    file.write_text("")
    shared.renew()
    assert {key.name for key in ring.current()} == {"two", "three"}


@pytest.mark.parametrize("text", ["", "# nobody", "nonsense"])
def test_a_file_without_keys_is_refused_at_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(UsageError, match="keys"):
        require_safe(Settings(host="0.0.0.0", api_keys_file=str(tmp_path / "keys")))
    with pytest.raises(UsageError, match="nowhere"):
        require_safe(Settings(api_keys_file=str(tmp_path / "nowhere")))


def test_the_fewest_connections_are_of_another_process_that_takes_more() -> None:
    shared = Shared()
    assert shared.fewest_elsewhere() is None
    for connections in (7, 3, 0, 2):
        shared.place = shared.take_place()
        shared.hold(connections)
    assert shared.fewest_elsewhere() == 0
    shared.free_place(2)  # killed
    assert shared.fewest_elsewhere() == 3
    shared.place = 1
    assert shared.fewest_elsewhere() == 2
    shared.place = 3
    shared.hold_no_more()  # about to stop
    shared.place = 0
    assert shared.fewest_elsewhere() == 3
