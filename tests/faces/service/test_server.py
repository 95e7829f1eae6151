"""The face service and its client, as they run."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from serving.contract.errors import FacesUnavailable, NotAnImage, PortTaken, UnknownPerson
from serving.faces.enrolment import enrol
from serving.faces.galleries.gallery import Candidate, Entry
from serving.faces.galleries.sqlite_store import SqliteStore
from serving.faces.recognition import Faces, identify
from serving.faces.service.client import FaceClient
from serving.faces.service.server import FaceServer, FaceService, LazyStore
from serving.local_calls.frames import LENGTH
from serving.supervisor import SocketCheck
from tests.faces.service.face_processes import face_processes, new_pool
from tests.waiting import until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
ENCODER = "dlib@1"


@pytest.fixture
def obama(photos: Path) -> bytes:
    return (photos / "known" / "obama.jpg").read_bytes()


@pytest.fixture
def service(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """The service as `sightline serve` starts it."""
    pytest.importorskip("dlib")
    environ = {**os.environ, "SIGHTLINE_FACES_URL": f"sqlite:///{tmp_path}/faces.db", "SIGHTLINE_FACES_PROCESSES": "1"}
    command = [sys.executable, "-m", "serving.faces", "--socket", str(tmp_path / "s")]
    process = subprocess.Popen(command, env=environ, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "1 face process" in process.stderr.readline()
    yield process
    process.terminate()
    assert process.wait(10) == 0
    process.stderr.close()


@pytest.fixture
def client(service: "subprocess.Popen[str]", tmp_path: Path) -> Iterator[FaceClient]:  # noqa: ARG001
    client = FaceClient(str(tmp_path / "s"), timeout_seconds=60)
    yield client
    client.close()


def test_service_finds_encodes_and_knows(client: FaceClient, photos: Path, obama: bytes) -> None:
    faces = Faces(client, client, client)
    assert enrol(faces, "obama", obama, keep_photo=True).stored
    answer = identify(faces, (photos / "unknown" / "two_people.jpg").read_bytes())
    assert sorted(str(match.name) for match in answer.matches) == ["None", "obama"]
    assert [person.name for person in client.people("default")] == ["obama"]
    assert client.galleries()[0].encoder == str(client.name)
    assert client.forget("default", "obama") == 1
    assert [record.action for record in client.audit()] == ["enrol", "forget"]
    assert client.owner("default", "x") is None
    assert client.drop("default") == 0


def test_the_supervisors_question_is_answered_also_after_a_stop(
    service: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    check = SocketCheck(str(tmp_path / "s"), LENGTH.pack(0))
    until(check.answered)
    service.send_signal(signal.SIGSTOP)
    check.answered()  # one answer may be on its way
    assert not any(check.answered() for _ in range(20))
    service.send_signal(signal.SIGCONT)
    until(check.answered)
    check.forget()


def test_errors_cross_the_socket_as_what_they_are(client: FaceClient) -> None:
    with pytest.raises(NotAnImage):
        client.find(b"hello")
    client.enrol("default", [Entry("ada", np.zeros(128, np.float32), "a")], encoder=ENCODER)
    with pytest.raises(UnknownPerson, match="'bob'"):
        client.forget("default", "bob")


def test_service_itself_loads_no_dlib_and_dies_with_its_processes(
    service: "subprocess.Popen[str]", client: FaceClient, obama: bytes
) -> None:
    client.find(obama)
    (worker,) = face_processes(service.pid)
    mapped = {Path(each.path).name for each in psutil.Process(service.pid).memory_maps()}
    assert not [name for name in mapped if "dlib" in name]
    assert [each for each in worker.memory_maps() if "dlib" in each.path]
    assert worker.nice() > psutil.Process(service.pid).nice()
    service.kill()
    service.wait()
    psutil.wait_procs([worker], timeout=10)
    assert not worker.is_running()
    service.returncode = 0  # for the fixture: this end was wanted


def test_client_survives_a_restart_of_the_service(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "faces.db")
    store.enrol("default", [Entry("ada", np.zeros(128, np.float32), "a")], encoder=ENCODER)
    client = FaceClient(str(tmp_path / "s"), timeout_seconds=5)
    with pytest.raises(FacesUnavailable, match="cannot be reached"):
        client.count("default")
    pool = new_pool()
    for _ in range(2):
        server = FaceServer(tmp_path / "s", FaceService(pool, LazyStore(lambda: store)))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        assert client.count("default") == 1
        assert client.nearest("default", np.zeros((1, 128), np.float32), 1, encoder=ENCODER) == [
            [Candidate("ada", 0.0)]
        ]
        server.shutdown()
        thread.join()
        server.server_close()
        client.close()
    pool.close()
    store.close()


def test_second_service_on_one_socket_is_refused_and_a_stale_socket_is_not(tmp_path: Path) -> None:
    pool, store = new_pool(), SqliteStore(tmp_path / "faces.db")
    server = FaceServer(tmp_path / "s", FaceService(pool, LazyStore(lambda: store)))
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    with pytest.raises(PortTaken, match="SIGHTLINE_FACES_SOCKET"):
        FaceServer(tmp_path / "s", FaceService(pool, LazyStore(lambda: store)))
    server.socket.close()  # as kill -9 leaves it
    FaceServer(tmp_path / "s", FaceService(pool, LazyStore(lambda: store))).server_close()
    assert not (tmp_path / "s").exists()
    pool.close()
    store.close()


def test_service_stops_on_sigterm(service: "subprocess.Popen[str]", client: FaceClient, obama: bytes) -> None:
    client.find(obama)
    workers = face_processes(service.pid)
    service.send_signal(signal.SIGTERM)
    assert service.wait(10) == 0
    assert not any(worker.is_running() for worker in workers)


EIGHTH = """
import sys
import numpy as np
from serving.faces.service.client import FaceClient
from serving.faces.galleries.gallery import Entry
client, number = FaceClient(sys.argv[1], timeout_seconds=60), int(sys.argv[2])
for turn in range(25):
    vector = np.zeros(128, np.float32)
    vector[:2] = number, turn
    client.enrol("default", [Entry(f"person {number}", vector, f"{number} {turn}")], encoder="dlib@1")
    found = client.nearest("default", vector[None], 1, encoder="dlib@1")[0][0]
    assert (found.name, found.distance) == (f"person {number}", 0.0), found
"""


def test_eight_processes_enrol_and_identify_at_once(client: FaceClient, tmp_path: Path) -> None:
    workers = [
        subprocess.Popen([sys.executable, "-c", EIGHTH, str(tmp_path / "s"), str(number)], cwd=ROOT)
        for number in range(8)
    ]
    assert [worker.wait(60) for worker in workers] == [0] * 8
    assert client.count("default") == 200
