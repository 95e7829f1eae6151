"""Run several model servers and gateways on this machine, behind nginx with docker/nginx.conf, and kill some.

    python -m benchmarks.cluster MODELS     # MODELS: a folder with a model of small pictures

Prints the rate of answers while model servers and gateways die and return. The model servers' devices are simulated
(paced_model_server): each answers 1000 / MILLISECONDS_PER_ROW pictures per second, so that capacity adds up on one
machine too. Such a device gains nothing from merging, so gateways do not merge here.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.services import ROOT, free_port
from export.artifact.serving_config import served_names
from serving.tuning.load import Load, post, run

MILLISECONDS_PER_ROW = 25.0
START_SECONDS = 120.0
REQUESTS = re.compile(r'^:tensorflow:serving:request_count\{model_name="\w+",status="OK"\} (\d+)', re.MULTILINE)


@dataclass
class Node:
    """A process that can be killed and started again on the same ports."""

    command: list[str]
    env: dict[str, str]
    ready_url: str
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env={**os.environ, **self.env}, stdout=out, stderr=out, start_new_session=True
            )

    def wait_until_ready(self) -> None:
        end = time.monotonic() + START_SECONDS
        while not answers(self.ready_url):
            if time.monotonic() > end or (self.process is not None and self.process.poll() is not None):
                raise RuntimeError(f"{self.command} did not become ready:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.1)

    def end(self, number: signal.Signals) -> None:
        """Send the signal to the process and its children, and wait until it has ended."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, number)
            self.process.wait(30)


@dataclass
class Cluster:
    """A running cluster. url: nginx's; model_servers, gateways: running or down."""

    url: str
    folder: Path
    models: Path
    model_servers: list[Node] = field(default_factory=list)
    gateways: list[Node] = field(default_factory=list)
    nginx: Node | None = None

    def answered(self) -> list[int]:
        """Count the calls that each model server has answered since its start; -1 for one that is down."""
        return [calls(node.ready_url) for node in self.model_servers]


def answers(url: str) -> bool:
    """Say whether the URL answers with a 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def calls(url: str) -> int:
    """Read from a model server's metrics how many calls it has answered; -1 where it does not answer."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return sum(map(int, REQUESTS.findall(answer.read().decode())))
    except OSError:
        return -1


@contextmanager
def running(
    models: Path,
    folder: Path,
    *,
    servers: int,
    gateways: int,
    down: int = 0,
    milliseconds: float = MILLISECONDS_PER_ROW,
) -> Iterator[Cluster]:
    """Run a cluster and yield it when it is ready. down: further model servers that gateways know of, not started."""
    port = free_port()
    cluster = Cluster(f"http://127.0.0.1:{port}", folder, models)
    grpc_ports = [free_port() for _ in range(servers + down)]
    cluster.model_servers = [
        _model_server(cluster, number, grpc, milliseconds) for number, grpc in enumerate(grpc_ports)
    ]
    backend = ",".join(f"127.0.0.1:{grpc}" for grpc in grpc_ports)
    ports = [free_port() for _ in range(gateways)]
    cluster.gateways = [_gateway(folder, number, where, backend) for number, where in enumerate(ports)]
    cluster.nginx = nginx_node(folder, port, ports)
    nodes = [*cluster.model_servers[:servers], *cluster.gateways, cluster.nginx]
    try:
        for node in nodes:
            node.start()
        for node in nodes:
            node.wait_until_ready()
        yield cluster
    finally:
        for node in [*cluster.gateways, *cluster.model_servers, cluster.nginx]:
            node.end(signal.SIGKILL)


def _model_server(cluster: Cluster, number: int, port: int, milliseconds: float) -> Node:
    rest = free_port()
    models, monitoring = cluster.folder / "models.config", cluster.folder / "monitoring.config"
    listed = [
        f'config {{ name: "{name}" base_path: "{cluster.models / name}" model_platform: "tensorflow" }}'
        for name in served_names(cluster.models)
    ]
    models.write_text(f"model_config_list {{ {' '.join(listed)} }}\n")  # the port opens when all are available
    monitoring.write_text("prometheus_config { enable: true }\n")
    command = [sys.executable, "-m", "benchmarks.paced_model_server", str(milliseconds)]
    command += ["--model_config_file", str(models), "--port", str(port), "--enable_batching"]
    command += ["--rest_api_port", str(rest), "--monitoring_config_file", str(monitoring)]
    url = f"http://127.0.0.1:{rest}/monitoring/prometheus/metrics"
    return Node(command, {}, url, cluster.folder / f"model-server-{number}.log")


def _gateway(folder: Path, number: int, port: int, backend: str) -> Node:
    command = [sys.executable, "-m", "serving", "--backend", backend, "--port", str(port), "--workers", "2"]
    env = {
        "SIGHTLINE_FACES_SOCKET": str(folder / "no-faces"),
        "SIGHTLINE_TRUSTED_PROXIES": "1",
        "SIGHTLINE_MERGE": "false",
    }
    return Node(command, env, f"http://127.0.0.1:{port}/readyz", folder / f"gateway-{number}.log")


def nginx_node(folder: Path, port: int, gateways: list[int]) -> Node:
    """Configure nginx from docker/nginx.conf, with this machine's ports and files in `folder`."""
    text = (ROOT / "docker" / "nginx.conf").read_text()
    line = re.search(r"^( *server )gateway-1:8000(.*\n)(?: *server gateway-.*\n)*", text, re.MULTILINE)
    assert line is not None
    text = text.replace(line[0], "".join(f"{line[1]}127.0.0.1:{gateway}{line[2]}" for gateway in gateways))
    text = text.replace("listen 8080", f"listen 127.0.0.1:{port}").replace("/tmp/sightline-nginx", f"{folder}/nginx")
    text = text.replace("worker_processes auto", "worker_processes 1")
    config = folder / "nginx.conf"
    config.write_text(text)
    user = "user root;" if os.getuid() == 0 else ""  # its workers enter `folder`
    command = ["nginx", "-c", str(config), "-g", f"daemon off; {user}"]
    return Node(command, {}, f"http://127.0.0.1:{port}/healthz", folder / "nginx.log")


def during(cluster: Cluster, request: bytes, event: Callable[[], None] | None, *, clients: int, seconds: float) -> Load:
    """Load the cluster, with the event after a third of the time."""
    timer = threading.Timer(1 + seconds / 3, event) if event else None
    if timer:
        timer.start()
    load = run(f"{cluster.url}/predict", [request], clients=clients, seconds=seconds, impatient=True)
    if timer:
        timer.join()
    return load


def failures(load: Load) -> int:
    """Count the requests that got no 200."""
    return load.broken + sum(count for status, count in load.statuses.items() if status != "200")


def request_for(cluster: Cluster) -> bytes:
    """Make a request of a golden example of the cluster's first model."""
    name = served_names(cluster.models)[0]
    picture = next((cluster.models / name).glob("*/assets.extra/golden/*.png")).read_bytes()
    return post(f"{cluster.url}/predict/{name}", picture, "image/png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--clients", type=int, default=48)
    parser.add_argument("--seconds", type=float, default=9.0)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        running(options.models.resolve(), Path(folder), servers=3, gateways=3, down=1) as cluster,
    ):
        request = request_for(cluster)
        servers, gateways = cluster.model_servers, cluster.gateways

        def restart(node: Node) -> None:
            node.start()
            node.wait_until_ready()

        print(f"{'':44} answers/s    p99 ms  failed")
        for what, event in (
            ("three model servers, three gateways", None),
            ("one model server is killed (kill -9)", lambda: servers[0].end(signal.SIGKILL)),
            ("two model servers", None),
            ("the killed one comes back", lambda: restart(servers[0])),
            ("three model servers", None),
            ("a fourth is added", lambda: restart(servers[3])),
            ("four model servers", None),
            ("one gateway is killed (kill -9)", lambda: gateways[0].end(signal.SIGKILL)),
            ("two gateways", None),
            ("it comes back", lambda: restart(gateways[0])),
            ("a gateway is told to stop (SIGTERM)", lambda: gateways[1].end(signal.SIGTERM)),
            ("it comes back", lambda: restart(gateways[1])),
            ("a model server is told to stop (SIGTERM)", lambda: servers[1].end(signal.SIGTERM)),
        ):
            load = during(cluster, request, event, clients=options.clients, seconds=options.seconds)
            failed = failures(load)
            print(f"{what:44} {load.per_second:9.0f} {load.p99:9.0f} {failed:7}", flush=True)
            if failed:
                print(f"  {load.statuses}, {load.broken} broken off")


if __name__ == "__main__":
    main()
