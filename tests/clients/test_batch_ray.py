import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from clients.batch.journal import Pending, Result
from clients.batch.ray_engine import score_persistently
from clients.batch.rows import FAILED, OK, Row
from clients.batch.scorer import Plan
from clients.batch.writers import read_rows
from clients.python.calls import Asked
from serving.contract.errors import ModelFailed, Overloaded, ScoringStopped, UnknownModel
from tests.clients.shades import Serve, ShadePredictor, png

ROOT = Path(__file__).parents[2]
PLAN = Plan(Asked("shades", 1), 1, patience_seconds=5.0)
ITEMS = [Pending(number, f"{number}.png", "", None) for number in range(8)]

# Two nodes' worth of processes; prints the address, waits to be told to end.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
print("ADDRESS", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def test_a_request_is_sent_again_until_it_is_answered() -> None:
    troubles = [Overloaded("full"), Overloaded("full")]
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
            raise ModelFailed("five")
        return [Result(item.ordinal) for item in items]

    results = score_persistently(score, ITEMS, PLAN)  # type: ignore[arg-type]
    assert [(result.ordinal, result.status) for result in results] == [
        (number, FAILED if number == 5 else OK) for number in range(8)
    ]


def test_patience_ends_and_what_makes_no_sense_is_not_repeated() -> None:
    def never(items: list[Pending]) -> list[Result]:
        raise Overloaded(f"{len(items)}")

    def unknown(items: list[Pending]) -> list[Result]:
        raise UnknownModel(f"{len(items)}")

    clock = iter(range(1000))
    with pytest.raises(ScoringStopped, match="--patience"):
        score_persistently(never, ITEMS, PLAN, clock=lambda: float(next(clock)), sleep=lambda _: None)  # type: ignore[arg-type]
    with pytest.raises(UnknownModel):
        score_persistently(unknown, ITEMS, PLAN)  # type: ignore[arg-type]


def rows_of(path: Path) -> list[Row]:
    """The rows of a file, less what no two runs have in common."""
    return [replace(row, ms=None) for row in read_rows(str(path))]


@pytest.mark.slow
def test_a_cluster_of_two_nodes_gives_the_rows_of_one_process(serve: Serve, tmp_path: Path) -> None:
    pytest.importorskip("ray.data", reason="the extra `ray` is not installed")
    service = serve(predictor=ShadePredictor())
    for number in range(300):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}.png").write_bytes(b"bad" if number % 50 == 7 else png(number % 256, side=8))
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "clients", "score", "in", "--model", "shades", "--url", service.url, "--ordered"]
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER], env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as cluster:
        assert cluster.stdout is not None
        address = next(line.split()[1] for line in cluster.stdout if line.startswith("ADDRESS"))
        for name, more in (
            ("ray.csv", ["--engine", "ray", "--address", address, "--concurrency", "2", "--per-request", "16"]),
            ("local.csv", []),
        ):
            done = subprocess.run(
                [*command, "--out", name, *more], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
            )
            assert done.returncode == 1, done.stderr[-2000:]  # some are bad
        cluster.communicate("")
    on_ray, here = (rows_of(tmp_path / name) for name in ("ray.csv", "local.csv"))
    assert on_ray == here
    assert len(here) == 300
