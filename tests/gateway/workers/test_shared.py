"""Memory that the workers share."""

from serving.gateway.workers.shared import Shared


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
