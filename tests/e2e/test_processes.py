"""Processes die, versions come, the port is taken. A test that changes its service has its own."""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from serving.contract.versions import version_dirs
from tests.e2e.conftest import ROOT, Service, start_service, stop_service
from tests.e2e.exported_models import Exported

Ask = Callable[[], httpx.Response]


@pytest.fixture
def models(exported: Exported, tmp_path: Path) -> Path:
    """The digits model alone, in a folder that the test may change."""
    shutil.copytree(exported.models / "digits", tmp_path / "models" / "digits")
    return tmp_path / "models"


@pytest.fixture
def own_service(models: Path) -> Iterator[Service]:
    service = start_service(models)
    yield service
    stop_service(service)


@pytest.fixture
def ask(http: httpx.Client, own_service: Service) -> Ask:
    return asking(http, own_service)


def asking(http: httpx.Client, service: Service) -> Ask:
    """Return a call that sends the first golden picture to the digits model."""
    picture = next((version_dirs(service.models / "digits")[0] / "assets.extra/golden").glob("*.png")).read_bytes()
    url, headers = f"{service.url}/predict/digits", {"content-type": "image/png"}
    return lambda: http.post(url, content=picture, headers=headers)


def publish_copy(model: Path, version: int) -> None:
    shutil.copytree(version_dirs(model)[0], model / ".tmp-copy")
    (model / ".tmp-copy").rename(model / str(version))


def test_a_service_with_keys_starts_and_answers_who_has_one(
    bars_version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, http: httpx.Client
) -> None:
    secret = "a long secret that nobody guesses"
    monkeypatch.setenv("SIGHTLINE_API_KEYS", f"me:{hashlib.sha256(secret.encode()).hexdigest()}:predict")
    shutil.copytree(bars_version, tmp_path / "models" / "bars" / "1")
    service = start_service(tmp_path / "models")
    try:
        picture = next((bars_version / "assets.extra/golden").glob("*.png")).read_bytes()
        for headers, status in (({}, 401), ({"authorization": f"Bearer {secret}"}, 200)):
            answer = http.post(
                f"{service.url}/predict/bars", content=picture, headers={"content-type": "image/png", **headers}
            )
            assert answer.status_code == status, answer.text
        assert service.process.poll() is None
    finally:
        stop_service(service)


def test_ctrl_c_stops_everything_within_five_seconds(own_service: Service) -> None:
    children = own_service.children()
    assert set(children) - {"face service"} == {"model server", "gateway"}
    assert stop_service(own_service) < 5
    assert own_service.process.returncode == 0
    for pid in children.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_second_one_on_the_same_port_is_told_so(service: Service) -> None:
    port = service.url.rpartition(":")[2]
    command = [sys.executable, "-m", "serving", "--port", port, "--models", str(service.models)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert f"port {port}" in done.stderr
    assert "PORT=" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_new_version_is_picked_up_under_load_without_a_failed_request(own_service: Service, ask: Ask) -> None:
    answers: list[httpx.Response] = []
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            answers.append(ask())

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        publish_copy(own_service.models / "digits", 2)
        own_service.wait_until(lambda: ask().json().get("version") == 2)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert [answer.text for answer in answers if answer.status_code != 200] == []
    assert {answer.json()["version"] for answer in answers} <= {1, 2}


def test_a_killed_model_server_returns_and_meanwhile_requests_are_told_to_wait(own_service: Service, ask: Ask) -> None:
    os.kill(own_service.children()["model server"], signal.SIGKILL)
    response = own_service.wait_until(lambda: (r := ask()).status_code == 503 and r)
    assert response.json()["code"] == "model_server_unavailable"
    assert int(response.headers["Retry-After"]) >= 1
    own_service.wait_until(lambda: ask().status_code == 200, 60)


def test_predictions_go_over_the_socket_and_over_grpc_where_it_is_gone(own_service: Service, ask: Ask) -> None:
    environ = Path(f"/proc/{own_service.workers()[0]}/environ").read_bytes().split(b"\0")
    path = next(
        Path(pair.partition(b"=")[2].decode()) for pair in environ if pair.startswith(b"SIGHTLINE_BACKEND_SOCKET=")
    )

    def connections() -> int:
        """Connections to the socket; one row more is the listener's."""
        return [row.split()[-1] for row in Path("/proc/net/unix").read_text().splitlines()].count(str(path)) - 1

    assert ask().status_code == 200
    assert connections() >= 1
    os.kill(own_service.children()["model server"], signal.SIGKILL)
    own_service.wait_until(lambda: path.exists() and ask().status_code == 200, 60)
    assert connections() >= 1
    path.unlink()
    before = own_service.workers()
    os.kill(before[0], signal.SIGTERM)  # the next worker has no connection that was there before
    own_service.wait_until(lambda: before[0] not in (now := own_service.workers()) and len(now) == len(before))
    assert {ask().status_code for _ in range(50)} == {200}


@dataclass
class Load:
    """Clients that ask without a pause. answers: what came, in the order of arrival; broken: connections that ended."""

    url: str
    picture: bytes
    answers: list[httpx.Response] = field(default_factory=list)
    broken: int = 0
    done: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self, clients: int) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.done.set()
            for thread in threads:
                thread.join()

    def _ask(self) -> None:
        with httpx.Client(timeout=60, trust_env=False) as client:
            while not self.done.is_set():
                try:
                    self.answers.append(client.post(f"{self.url}/predict/digits", content=self.picture))
                except httpx.TransportError:
                    self.broken += 1


def test_under_load_a_killed_worker_model_server_and_a_new_version_give_no_wrong_answer(
    own_service: Service,
) -> None:
    golden = version_dirs(own_service.models / "digits")[0] / "assets.extra" / "golden"
    load = Load(own_service.url, sorted(golden.glob("*.png"))[0].read_bytes())
    label = httpx.post(f"{load.url}/predict/digits", content=load.picture).json()["predictions"][0]["label"]
    clients = 4
    with load.running(clients):
        own_service.wait_until(lambda: load.answers)
        workers = own_service.workers()
        os.kill(workers[0], signal.SIGKILL)
        own_service.wait_until(lambda: len(set(own_service.workers()) - set(workers)) == 1)
        os.kill(own_service.children()["model server"], signal.SIGKILL)
        own_service.wait_until(lambda: load.answers[-1].status_code == 503)
        own_service.wait_until(lambda: load.answers[-1].status_code == 200, 60)
        publish_copy(own_service.models / "digits", 2)
        own_service.wait_until(lambda: load.answers[-1].json().get("version") == 2)
    by_status = {status: [a for a in load.answers if a.status_code == status] for status in (200, 503)}
    assert sum(map(len, by_status.values())) == len(load.answers)
    assert {answer.json()["predictions"][0]["label"] for answer in by_status[200]} == {label}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in by_status[503])
    assert load.broken <= clients  # the connections that the killed worker held


def test_a_killed_supervisor_takes_its_children_along(own_service: Service) -> None:
    children = own_service.children()
    own_service.process.kill()
    own_service.process.wait(5)

    def all_gone() -> bool:
        return not any(Path(f"/proc/{pid}/cmdline").exists() and _alive(pid) for pid in children.values())

    own_service.wait_until(all_gone, 15)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_gateway_workers_never_load_tensorflow(service: Service, http: httpx.Client) -> None:
    workers = service.workers()
    assert asking(http, service)().status_code == 200
    assert workers
    for pid in workers:
        assert "tensorflow" not in Path(f"/proc/{pid}/maps").read_text()
