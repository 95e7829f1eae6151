import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sightline import NotFound, ServerError, Unavailable
from sightline.calls import PredictOptions

from clients.batch.errors import ScoringStopped
from clients.batch.journal import Pending, Result
from clients.batch.ray_engine import score_persistently
from clients.batch.rows import FAILED, OK, Row
from clients.batch.scorer import Plan
from clients.batch.writers import read_rows
from tests.clients.shades import Serve, ShadePredictor, png

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT)}
PLAN = Plan(PredictOptions("shades", 1), 1, patience_seconds=5.0)
ITEMS = [Pending(number, f"{number}.png", "", None) for number in range(8)]

# Two nodes' worth of processes; prints the address, loses a node when it is told "lose", ends with its input.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
print("ADDRESS", cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(second, allow_graceful=False)  # its processes are killed
    print("LOST", flush=True)
cluster.shutdown()
"""


def test_a_request_is_sent_again_until_it_is_answered() -> None:
    troubles = [Unavailable("full"), Unavailable("full")]
    pauses: list[float] = []

    def score(items: list[Pending]) -> list[Result]:
        if troubles:
            raise troubles.pop()
        return [Result(item.ordinal) for item in items]

    assert len(score_persistently(score, ITEMS, PLAN, sleep=pauses.append)) == 8  # type: ignore[arg-type]
    assert len(pauses) == 2


def test_the_picture_that_breaks_the_model_fails_alone() -> None:
    def score(items: list[Pending]) -> list[Result]:
        if any(item.ordinal == 5 for item in items):
            raise ServerError("five")
        return [Result(item.ordinal) for item in items]

    results = score_persistently(score, ITEMS, PLAN)  # type: ignore[arg-type]
    assert [(result.ordinal, result.status) for result in results] == [
        (number, FAILED if number == 5 else OK) for number in range(8)
    ]


def test_patience_ends_and_what_makes_no_sense_is_not_repeated() -> None:
    def never(items: list[Pending]) -> list[Result]:
        raise Unavailable(f"{len(items)}")

    def unknown(items: list[Pending]) -> list[Result]:
        raise NotFound(f"{len(items)}")

    clock = iter(range(1000))
    with pytest.raises(ScoringStopped, match="--patience"):
        score_persistently(never, ITEMS, PLAN, clock=lambda: float(next(clock)), sleep=lambda _: None)  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        score_persistently(unknown, ITEMS, PLAN)  # type: ignore[arg-type]


def rows_of(path: Path) -> list[Row]:
    """The rows of a file, less what no two runs have in common."""
    return [replace(row, ms=None) for row in read_rows(str(path))]


@contextmanager
def cluster_of_two() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A cluster's process, and its address."""
    pytest.importorskip("ray.data", reason="the extra `ray` is not installed")
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", CLUSTER], env=ENVIRON, text=True, stdin=pipe, stdout=pipe) as cluster:
        assert cluster.stdout is not None
        yield cluster, next(line.split()[1] for line in cluster.stdout if line.startswith("ADDRESS"))
        assert cluster.stdin is not None
        cluster.stdin.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_lost_node_loses_no_row(serve: Serve, tmp_path: Path) -> None:
    predictor = ShadePredictor(seconds=0.3)
    service = serve(predictor=predictor)
    (tmp_path / "in").mkdir()
    for number in range(400):
        (tmp_path / "in" / f"{number:03}.png").write_bytes(b"bad" if number == 7 else png(number % 256, side=8))
    command = [sys.executable, "-m", "clients", "score", "in", "--model", "shades", "--url", service.url, "--ordered"]
    with cluster_of_two() as (cluster, address):
        more = ["--engine", "ray", "--address", address, "--concurrency", "2", "--per-request", "4"]
        on_ray = [*command, "--out", "ray.csv", *more]
        with subprocess.Popen(on_ray, cwd=tmp_path, env=ENVIRON, stderr=subprocess.PIPE, text=True) as process:
            while len(predictor.batches) < 20 and process.poll() is None:
                time.sleep(0.1)
            assert process.poll() is None, "the run was over before a node could be lost"
            assert cluster.stdin is not None
            assert cluster.stdout is not None
            cluster.stdin.write("lose\n")
            cluster.stdin.flush()
            assert cluster.stdout.readline() == "LOST\n"
            said = process.communicate(timeout=400)[1]
        print(said)
        assert process.returncode == 1, said  # one picture is bad
        if not (tmp_path / "ray.csv").exists():  # it may stop; then it says so, and the same command goes on
            assert "run the same command again" in said
            assert subprocess.run(on_ray, cwd=tmp_path, env=ENVIRON, check=False).returncode == 1
    here = subprocess.run([*command, "--out", "local.csv"], cwd=tmp_path, env=ENVIRON, check=False)
    assert here.returncode == 1
    assert rows_of(tmp_path / "ray.csv") == rows_of(tmp_path / "local.csv")
    assert len(rows_of(tmp_path / "ray.csv")) == 400


@pytest.mark.slow
def test_a_cluster_of_two_nodes_gives_the_rows_of_one_process(serve: Serve, tmp_path: Path) -> None:
    service = serve(predictor=ShadePredictor())
    for number in range(300):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}.png").write_bytes(b"bad" if number % 50 == 7 else png(number % 256, side=8))
    command = [sys.executable, "-m", "clients", "score", "in", "--model", "shades", "--url", service.url, "--ordered"]
    with cluster_of_two() as (_, address):
        for name, more in (
            ("ray.csv", ["--engine", "ray", "--address", address, "--concurrency", "2", "--per-request", "16"]),
            ("local.csv", []),
        ):
            done = subprocess.run(
                [*command, "--out", name, *more], cwd=tmp_path, env=ENVIRON, capture_output=True, text=True, check=False
            )
            assert done.returncode == 1, done.stderr[-2000:]  # some are bad
    on_ray, here = (rows_of(tmp_path / name) for name in ("ray.csv", "local.csv"))
    assert on_ray == here
    assert len(here) == 300
