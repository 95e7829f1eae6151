from clients.batch.limiter import Limiter


def test_success_adds_requests_until_the_most() -> None:
    limiter = Limiter(5)
    widths = []
    for _ in range(5):
        widths.append(limiter.requests)
        limiter.succeeded()
    assert widths == [2, 3, 4, 5, 5]


def test_a_refusal_halves_once_for_all_that_were_under_way() -> None:
    limiter = Limiter(8, width=8)
    assert limiter.refused(began=1.0, now=2.0) == 0.1
    assert limiter.requests == 4
    limiter.refused(began=1.5, now=2.1)  # sent before the first refusal was heard
    assert limiter.requests == 4
    assert limiter.refused(began=3.0, now=4.0) == 0.2
    assert limiter.requests == 2


def test_after_a_refusal_it_grows_by_one_a_round() -> None:
    limiter = Limiter(8, width=8)
    limiter.refused(0, 1)
    for _ in range(4):
        limiter.succeeded()
    assert 4.8 < limiter.width < 5


def test_it_never_stops_and_the_pause_has_an_end() -> None:
    limiter = Limiter(1)
    pauses = [limiter.refused(began=now, now=now + 0.5) for now in range(20)]
    assert limiter.requests == 1
    assert pauses[-1] == 5.0
    limiter.succeeded()
    assert limiter.refused(30, 31) == 0.1
