import httpx
from sightline.retries import Retries


def test_pauses_double_are_jittered_and_respect_retry_after() -> None:
    request = httpx.Request("GET", "http://x")
    busy = httpx.Response(503, request=request)
    asked = httpx.Response(429, headers={"Retry-After": "5"}, request=request)
    dated = httpx.Response(503, headers={"Retry-After": "Thu, 01 Jan 1970 00:00:07 GMT"}, request=request)
    endless = httpx.Response(503, headers={"Retry-After": "3600"}, request=request)
    retries = Retries(3, jitter=lambda: 1.0, now=lambda: 3.0)
    assert [retries.delay(busy, attempt, True) for attempt in range(4)] == [0.25, 0.5, 1.0, None]
    assert Retries(3, jitter=lambda: 0.0).delay(busy, 0, True) == 0.125
    assert retries.delay(asked, 0, True) == 5.0
    assert retries.delay(dated, 0, True) == 4.0
    assert retries.delay(endless, 0, True) is None
    assert retries.delay(httpx.Response(400, request=request), 0, True) is None


def test_what_must_not_happen_twice_is_repeated_only_when_it_did_not_happen() -> None:
    retries = Retries(2)
    lost, refused = httpx.ReadError("reset"), httpx.ConnectError("refused")
    assert retries.delay(lost, 0, repeatable=True) is not None
    assert retries.delay(lost, 0, repeatable=False) is None
    assert retries.delay(refused, 0, repeatable=False) is not None
    assert retries.delay(httpx.ReadTimeout("slow"), 0, repeatable=True) is None
