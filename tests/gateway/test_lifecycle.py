"""Workers that come and go, keys that change, clients that leave: real gunicorn, and a model server to be held."""

import contextlib
import io
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from serving.backend.protos import wire_pb2 as wire
from serving.gateway.access.keys import new_key
from tests.backend.color_server import ColorServer, serving
from tests.gateway.gateway_process import Gateway, running, wait_until_refused

pytestmark = pytest.mark.integration

SECONDS = 90
CLASSES = ["gevent", pytest.param("gthread", marks=pytest.mark.slow)]


@dataclass
class HeldServer(ColorServer):
    """Answers Predict while `free` is set. held: how many calls wait."""

    free: threading.Event = field(default_factory=threading.Event)
    held: int = 0
    target: str = ""

    def predict(self, request: wire.PredictRequest, context: Any) -> wire.PredictResponse:
        if request.model_spec.signature_name != "model_card":
            self.held += 1
            self.free.wait(SECONDS)
            self.held -= 1
        return super().predict(request, context)


@pytest.fixture
def models() -> Iterator[HeldServer]:
    held = HeldServer()
    held.free.set()
    with serving(held, threads=40) as held.target:
        yield held
        held.free.set()


@pytest.fixture
def run(models: HeldServer, tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    with contextlib.ExitStack() as stack:

        def start(**settings: str) -> Gateway:
            gateway = stack.enter_context(running(tmp_path, **{"backend": models.target, "merge": "false", **settings}))
            until(lambda: httpx.get(f"{gateway.url}/readyz", trust_env=False).status_code == 200)
            return gateway

        yield start
        models.free.set()


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        with contextlib.suppress(httpx.TransportError):
            if holds():
                return
        assert time.monotonic() < deadline
        time.sleep(0.02)


def red() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), "red").save(buffer, "PNG")
    return buffer.getvalue()


def post(client: httpx.Client | Any, gateway: Gateway, **options: Any) -> httpx.Response:
    headers = {"Content-Type": "image/png", **options.pop("headers", {})}
    response: httpx.Response = client.post(
        f"{gateway.url}/predict/colors", content=red(), headers=headers, timeout=SECONDS, **options
    )
    return response


class Load:
    """Clients that keep their connections and ask without a pause while the block runs. seen: their answers."""

    def __init__(self, gateway: Gateway, clients: int = 4, headers: dict[str, str] | None = None) -> None:
        self._gateway, self._headers = gateway, headers or {}
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        self.seen: Counter[Any] = Counter()

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx.Client(trust_env=False) as client:
            while not self._done.is_set():
                try:
                    self.seen[post(client, self._gateway, headers=self._headers).status_code] += 1
                except httpx.TransportError as exc:
                    self.seen[repr(exc)] += 1


@pytest.mark.parametrize("worker_class", CLASSES)
def test_workers_are_replaced_without_a_lost_request(run: Any, worker_class: str) -> None:
    gateway = run(worker_class=worker_class, workers="2", max_requests="40")
    seen: set[int] = set()

    def have_changed_twice() -> bool:
        seen.update(gateway.workers())
        return len(seen) >= 6

    with Load(gateway) as load:
        until(have_changed_twice)
    assert set(load.seen) == {200}
    assert load.seen[200] > 80


@pytest.mark.parametrize("worker_class", CLASSES)
def test_before_a_stop_readyz_says_so_and_what_has_begun_is_answered(
    run: Any, models: HeldServer, worker_class: str
) -> None:
    gateway = run(worker_class=worker_class, drain_seconds="1")
    models.free.clear()
    answers: list[httpx.Response] = []
    begun = threading.Thread(target=lambda: answers.append(post(httpx, gateway)))
    begun.start()
    until(lambda: models.held == 1)
    gateway.process.terminate()
    until(lambda: httpx.get(f"{gateway.url}/readyz", trust_env=False).status_code == 503)
    told = httpx.get(f"{gateway.url}/readyz", trust_env=False)
    assert told.json()["code"] == "stopping"
    assert httpx.get(f"{gateway.url}/healthz", trust_env=False).status_code == 200
    wait_until_refused(gateway)
    models.free.set()
    begun.join()
    assert answers[0].status_code == 200
    assert gateway.process.wait(20) == 0


def test_keys_are_read_again_without_a_lost_request(run: Any, tmp_path: Path) -> None:
    made = {name: new_key(name, ["predict"]) for name in ("stays", "goes", "comes")}
    file = tmp_path / "keys"

    def write(*names: str) -> None:
        file.write_text("# who may ask\n" + "\n".join(f"{made[name][1]}  # {name}" for name in names))

    def status(name: str) -> set[int]:
        """Ask over several connections: any free worker answers."""
        headers = {"Authorization": f"Bearer {made[name][0]}"}
        return {httpx.get(f"{gateway.url}/models", headers=headers, trust_env=False).status_code for _ in range(10)}

    write("stays", "goes")
    gateway = run(api_keys_file=str(file), workers="2")
    workers = gateway.workers()
    assert (status("stays"), status("goes"), status("comes")) == ({200}, {200}, {401})
    with Load(gateway, headers={"Authorization": f"Bearer {made['stays'][0]}"}) as load:
        write("stays", "comes")
        gateway.process.send_signal(signal.SIGHUP)
        until(lambda: status("comes") == {200})
        assert (status("stays"), status("goes")) == ({200}, {401})
        file.write_text("nonsense")
        gateway.process.send_signal(signal.SIGHUP)
        until(lambda: "The keys stay as they were" in gateway.log.read_text())
        assert (status("stays"), status("comes")) == ({200}, {200})
    assert set(load.seen) == {200}
    assert gateway.workers() == workers


@pytest.mark.parametrize("worker_class", CLASSES)
def test_the_bound_of_all_processes_holds_and_outlives_a_killed_worker(
    run: Any, models: HeldServer, worker_class: str
) -> None:
    gateway = run(worker_class=worker_class, workers="2", threads="8", max_in_flight="3")
    models.free.clear()
    held: list[Any] = []

    def hold() -> None:
        with contextlib.suppress(httpx.TransportError):
            held.append(post(httpx, gateway))

    threads = [threading.Thread(target=hold) for _ in range(3)]
    for number, thread in enumerate(threads, 1):
        thread.start()
        until(lambda number=number: models.held == number)
    for _ in range(6):
        refused = httpx.get(f"{gateway.url}/models", trust_env=False)
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert "SIGHTLINE_MAX_IN_FLIGHT" in refused.json()["detail"]
        assert refused.headers["Retry-After"] == "1"
    for pid in gateway.workers():
        os.kill(pid, signal.SIGKILL)
    until(lambda: httpx.get(f"{gateway.url}/models", trust_env=False).status_code == 200)
    models.free.set()
    for thread in threads:
        thread.join()
    assert held == []


@pytest.mark.parametrize("worker_class", CLASSES)
def test_a_client_that_goes_away_makes_room(run: Any, models: HeldServer, worker_class: str) -> None:
    gateway = run(worker_class=worker_class, workers="1", threads="1")
    models.free.clear()
    body = red()
    head = f"POST /predict/colors HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", gateway.port))
    connection.sendall(head.encode() + body)
    until(lambda: models.held == 1)
    assert httpx.get(f"{gateway.url}/models", trust_env=False).json()["code"] == "overloaded"
    connection.close()
    until(lambda: httpx.get(f"{gateway.url}/models", trust_env=False).status_code == 200)
    assert models.held == 1  # nobody waits for it any more, and it is still out


@pytest.mark.parametrize("worker_class", CLASSES)
def test_a_client_that_closes_its_sending_side_gets_its_answer(run: Any, models: HeldServer, worker_class: str) -> None:
    gateway = run(worker_class=worker_class, workers="1", threads="1")
    models.free.clear()
    body = red()
    head = f"POST /predict/colors HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=SECONDS) as connection:
        connection.sendall(head.encode() + body)
        connection.shutdown(socket.SHUT_WR)
        interim = connection.recv(25)  # comes once the closed side has been noticed
        assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert models.held == 1
        models.free.set()
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"label":"red"' in answer
