"""Files of metrics: allocated before they are mapped, and done without where there is no room."""

import contextlib
import json
import resource
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serving.gateway.telemetry import metric_files
from serving.gateway.telemetry.metric_files import AllocatedDict
from tests.gateway.exposition import samples
from tests.gateway.gateway_process import running

LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))"


@contextlib.contextmanager
def at_most(size: int) -> Iterator[None]:
    """No file of this process may be larger: a fallocate beyond it fails as one on a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(autouse=True)
def _kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_files, "_lost", False)


def test_every_page_is_allocated_at_the_start_and_after_growth(tmp_path: Path) -> None:
    path = tmp_path / "counter_1.db"
    values = AllocatedDict(str(path))
    for number in range(2000):
        values.write_value(f"a key that is rather long, number {number}", float(number), 0.0)
        values.read_value(f"another key that is rather long, number {number}")
    written = path.stat()
    assert written.st_size > 2**17
    assert written.st_blocks * 512 >= written.st_size
    values.close()
    again = AllocatedDict(str(path))
    assert again.read_value("a key that is rather long, number 1999")[0] == 1999
    again.close()


def test_without_room_nothing_is_kept_and_no_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "counter_1.db"
    with at_most(1000):
        values = AllocatedDict(str(path))
        values.write_value("a", 1.0, 0.0)
        assert values.read_value("a") == (0.0, 0.0)
        values.close()
    assert metric_files.is_lost()
    assert not path.exists()


def test_a_file_that_cannot_grow_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "counter_1.db"
    values = AllocatedDict(str(path))
    with at_most(2**16):
        for number in range(2000):
            values.read_value(f"a key that is rather long, number {number}")
            values.write_value(f"a key that is rather long, number {number}", float(number), 0.0)
    assert metric_files.is_lost()
    rows = {key: value for key, value, *_ in AllocatedDict.read_all_values_from_file(str(path))}  # type: ignore[no-untyped-call]
    assert rows["a key that is rather long, number 1"] == 1.0
    values.close()


@pytest.mark.integration
def test_a_gateway_without_room_for_metrics_serves_and_says_so(tmp_path: Path) -> None:
    with running(tmp_path, LIMIT, workers="2") as gateway:
        for _ in range(10):
            assert httpx.get(f"{gateway.url}/models", trust_env=False).status_code == 503
        text = httpx.get(f"{gateway.url}/metrics", trust_env=False).text
        assert samples(text)["sightline_metrics_incomplete",] == 1
        workers = gateway.workers()
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines()]
    assert len([line for line in lines if "No room for metrics" in line["message"]]) == len(workers) == 2
