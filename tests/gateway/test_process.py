"""gunicorn with two workers and no model server behind them, under both worker classes."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.gateway.exposition import samples
from tests.gateway.gateway_process import Gateway, running

pytestmark = pytest.mark.integration


@pytest.fixture(params=["gevent", "gthread"])
def gateway(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    with running(tmp_path, worker_class=request.param) as gateway:
        yield gateway


def test_the_metrics_of_several_workers_are_their_sum_and_outlive_a_worker(gateway: Gateway) -> None:
    def count() -> float:
        text = httpx.get(f"{gateway.url}/metrics", trust_env=False).text
        return samples(text).get(("sightline_request_total", "/models", "503", "", ""), 0)

    for _ in range(8):  # a connection each: whichever worker is free answers
        response = httpx.get(f"{gateway.url}/models", trust_env=False)
        assert response.status_code == 503
    assert [count() for _ in range(5)] == [8] * 5
    for pid in gateway.workers():
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            assert count() == 8
            break
        time.sleep(0.1)
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines() if line.startswith("{")]
    assert [line["code"] for line in lines if line["message"] == "request"] == ["model_server_unavailable"] * 8
    gateway.process.terminate()
    assert gateway.process.wait(20) == 0
    assert not list(gateway.temporary.glob("sightline-metrics-*"))
