"""Several model servers and gateways behind docker/nginx.conf: what dies is done without, what comes back is used."""

import shutil
import signal
from collections.abc import Callable, Iterator

import pytest

from benchmarks.cluster import Cluster, Node, during, failures, request_for, running
from export.options import Target
from export.pipeline import export
from tests.bars import bars_recipe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        shutil.which("nginx") is None, reason="nginx is not installed (Debian: apt install nginx-light)"
    ),
]

CLIENTS = 16


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    models = tmp_path_factory.mktemp("models")
    export(bars_recipe(epochs=1), Target(models, "bars"))
    with running(models, tmp_path_factory.mktemp("cluster"), servers=2, gateways=2, down=1, milliseconds=10) as cluster:
        yield cluster


def again(node: Node) -> None:
    node.start()
    node.wait_until_ready()


def shares_while(cluster: Cluster, event: Callable[[], None] | None) -> list[int]:
    """Calls that each model server answered meanwhile; -1 for one that is down. No request may be lost."""
    before = cluster.answered()
    load = during(cluster, request_for(cluster), event, clients=CLIENTS, seconds=4)
    assert load.statuses.get("200"), load
    assert failures(load) == 0, load
    return [now - max(then, 0) if now >= 0 else -1 for then, now in zip(before, cluster.answered(), strict=True)]


def test_model_servers_die_and_come_and_no_request_is_lost(cluster: Cluster) -> None:
    first, _, third = cluster.model_servers
    shares = shares_while(cluster, None)
    assert min(shares[:2]) > 0
    assert shares[2] == -1
    shares_while(cluster, lambda: first.end(signal.SIGKILL))
    shares = shares_while(cluster, None)
    assert shares[0] == -1
    assert shares[1] > 0
    first.start()
    shares_while(cluster, lambda: again(third))
    first.wait_until_ready()
    assert min(shares_while(cluster, None)) > 0


def test_gateways_and_model_servers_stop_and_only_what_a_killed_one_held_is_lost(cluster: Cluster) -> None:
    killed, stopped = cluster.gateways
    load = during(cluster, request_for(cluster), lambda: killed.end(signal.SIGKILL), clients=CLIENTS, seconds=4)
    assert set(load.statuses) <= {"200", "502"}, load  # 502: it may have been the request that ended the gateway
    assert failures(load) <= CLIENTS, load
    shares_while(cluster, lambda: again(killed))
    shares_while(cluster, lambda: stopped.end(signal.SIGTERM))
    shares_while(cluster, lambda: cluster.model_servers[1].end(signal.SIGTERM))
