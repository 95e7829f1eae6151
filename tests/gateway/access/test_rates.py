"""Rate limits, in memory and in a real Redis."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.contract.errors import RateLimited, UsageError
from serving.gateway.access.keys import new_key
from serving.gateway.access.rates import RateLimit
from serving.gateway.app import create_app
from serving.gateway.settings import Settings, read_settings


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([program, "--port", str(port), "--save", ""], cwd=tmp_path, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield f"redis://127.0.0.1:{port}"
    process.terminate()
    process.wait(20)


def spent(limit: RateLimit, who: str, times: int = 10) -> int:
    """Return how many of the requests pass."""
    count = 0
    for _ in range(times):
        with contextlib.suppress(RateLimited):
            limit.spend(who)
            count += 1
    return count


def test_each_client_has_its_own_count() -> None:
    limit = RateLimit("3/hour")
    assert spent(limit, "one") == 3
    assert spent(limit, "two") == 3
    assert spent(limit, "one") == 0


def test_all_of_several_limits_hold() -> None:
    assert spent(RateLimit("5/hour,2/day"), "one") == 2


def test_without_a_limit_everything_passes() -> None:
    assert spent(RateLimit(""), "one", 1000) == 1000


def test_who_is_too_much_is_told_when_to_come_back() -> None:
    limit = RateLimit("1/hour")
    limit.spend("one")
    with pytest.raises(RateLimited, match="1 per 1 hour") as caught:
        limit.spend("one")
    assert 1 <= caught.value.retry_after_seconds <= 2 * 3600


def test_what_is_refused_is_a_problem_with_retry_after(predictor: Any) -> None:
    client = create_app(Settings(rate_limit="2/hour"), predictor).test_client()
    answers = [client.get("/models") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[-1].get_json()["code"] == "rate_limited"
    assert "SIGHTLINE_RATE_LIMIT" in answers[-1].get_json()["detail"]
    assert answers[-1].content_type == "application/problem+json"
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert client.get("/healthz").status_code == 200  # probes are not counted


def test_a_key_counts_wherever_it_is_used_from(predictor: Any) -> None:
    made = [new_key(name, ["predict"]) for name in ("one", "two")]
    settings = Settings(rate_limit="1/hour", api_keys=",".join(entry for _, entry in made))
    client = create_app(settings, predictor).test_client()

    def ask(key: str, address: str) -> int:
        headers = {"Authorization": f"Bearer {key}"}
        return client.get("/models", headers=headers, environ_base={"REMOTE_ADDR": address}).status_code

    assert ask(made[0][0], "192.0.2.1") == 200
    assert ask(made[0][0], "192.0.2.2") == 429
    assert ask(made[1][0], "192.0.2.1") == 200


@pytest.mark.parametrize(("trusted", "second"), [(0, 429), (1, 200)])
def test_behind_a_proxy_the_clients_address_counts(predictor: Any, trusted: int, second: int) -> None:
    client = create_app(Settings(rate_limit="1/hour", trusted_proxies=trusted), predictor).test_client()

    def ask(forwarded: str) -> int:
        return client.get("/models", headers={"X-Forwarded-For": forwarded}).status_code

    assert ask("192.0.2.1") == 200
    assert ask("192.0.2.2") == second
    assert ask("192.0.2.1") == 429
    assert ask("10.9.9.9, 192.0.2.1") == 429  # what the client says of itself does not count


def test_all_processes_count_together_in_redis(redis_url: str) -> None:
    one, other = RateLimit("3/hour", redis_url), RateLimit("3/hour", redis_url)
    one.spend("x")
    other.spend("x")
    one.spend("x")
    for limit in (one, other):
        with pytest.raises(RateLimited):
            limit.spend("x")


def test_while_redis_is_away_nobody_is_refused_and_it_is_asked_again_later() -> None:
    now = [0.0]
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{probe.getsockname()[1]}"
    limit = RateLimit("1/hour", url, clock=lambda: now[0])
    assert spent(limit, "one") == 10


@pytest.mark.parametrize("storage", ["nowhere://", "redis", "postgres://x"])
def test_a_storage_that_is_none_is_refused(storage: str) -> None:
    with pytest.raises(UsageError, match="SIGHTLINE_RATE_LIMIT_STORAGE"):
        RateLimit("1/hour", storage)


def test_a_rate_that_is_none_is_refused_at_start() -> None:
    with pytest.raises(UsageError, match="rate_limit is 'often'"):
        read_settings({"SIGHTLINE_RATE_LIMIT": "often"})
