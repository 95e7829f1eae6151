"""The face processes and the service in front of them, as they run."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from serving.contract.errors import (
    DeadlineExceeded,
    FaceProcessDied,
    FacesUnavailable,
    NotAnImage,
    Overloaded,
    PortTaken,
    UnknownPerson,
)
from serving.contract.image_limits import ImageLimits
from serving.faces.enrolment import enrol
from serving.faces.galleries.gallery import Candidate, Entry
from serving.faces.galleries.sqlite_store import SqliteStore
from serving.faces.recognition import Faces, identify
from serving.faces.service.client import FaceClient
from serving.faces.service.pool import FacePool
from serving.faces.service.server import FaceServer, FaceService, LazyStore
from serving.faces.service.worker import WorkerSettings

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
ENCODER = "dlib@1"


def new_pool(*, processes: int = 1, waiting: int = 0, timeout_seconds: float = 60) -> FacePool:
    settings = WorkerSettings(ImageLimits(), 800, preload=False)
    return FacePool(settings, processes=processes, waiting=waiting, timeout_seconds=timeout_seconds)


def face_processes(parent: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(parent).children() if "spawn_main" in " ".join(child.cmdline())]


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


# ---- the pool


def test_past_the_queue_the_answer_is_overloaded_at_once(obama: bytes) -> None:
    pool = new_pool(waiting=1)
    photo = slow_photo()
    with ThreadPoolExecutor(6) as threads:
        asked = [threads.submit(pool.find, photo) for _ in range(6)]
        failures = [future.exception() for future in asked]
    assert [type(failure) for failure in failures if failure] == [Overloaded] * 4
    assert len(pool.find(obama).faces) == 1
    pool.close()


def test_process_that_dies_is_replaced_and_its_photo_done(obama: bytes) -> None:
    others = {child.pid for child in face_processes(os.getpid())}
    pool = new_pool()
    pool.find(obama)
    for _ in range(3):
        (child,) = (child for child in face_processes(os.getpid()) if child.pid not in others)
        child.kill()
        assert len(pool.find(obama).faces) == 1
    pool.close()


def test_photo_that_kills_every_process_is_given_up(obama: bytes) -> None:
    others = {child.pid for child in face_processes(os.getpid())}
    pool = new_pool()
    pool.find(obama)
    stop = threading.Event()

    def kill_all() -> None:
        while not stop.wait(0.01):
            with contextlib.suppress(psutil.NoSuchProcess):  # it was faster than us
                for child in face_processes(os.getpid()):
                    if child.pid not in others:
                        child.kill()

    killer = threading.Thread(target=kill_all)
    killer.start()
    try:
        with pytest.raises(FaceProcessDied):
            pool.find(slow_photo())
    finally:
        stop.set()
        killer.join()
    assert len(pool.find(obama).faces) == 1
    pool.close()


def test_photo_that_takes_too_long_ends_its_process_and_no_other(obama: bytes) -> None:
    pool = new_pool()
    pool.find(obama)
    pool._timeout_seconds = 0.01
    with pytest.raises(DeadlineExceeded, match="SIGHTLINE_FACES_TIMEOUT_SECONDS"):
        pool.find(obama)
    pool._timeout_seconds = 60
    assert len(retried(pool, obama)) == 1
    pool.close()


def test_process_of_a_photo_past_its_deadline_is_killed_although_the_photo_had_to_wait() -> None:
    """The deadline counts from the call: what waited until then must not hold a process as long again."""
    others = {child.pid for child in face_processes(os.getpid())}
    pool = new_pool(waiting=1, timeout_seconds=4)
    stopped: list[psutil.Process] = []
    finished = threading.Event()

    def stop_all() -> None:
        """Keep every process of the pool from answering."""
        while not finished.wait(0.01):
            for child in face_processes(os.getpid()):
                if child.pid not in others and child not in stopped:
                    child.suspend()
                    stopped.append(child)

    stopper = threading.Thread(target=stop_all)
    stopper.start()
    try:
        with ThreadPoolExecutor(2) as threads:
            asked = [threads.submit(pool.find, slow_photo()) for _ in range(2)]
            assert [type(future.exception()) for future in asked] == [DeadlineExceeded] * 2
        _, alive = psutil.wait_procs(stopped[:2], timeout=2)
        assert alive == []
    finally:
        finished.set()
        stopper.join()
        pool.close()


def slow_photo() -> bytes:
    """A photo without a face: every look is taken, for a second or so."""
    file = io.BytesIO()
    Image.new("RGB", (2000, 1600), "teal").save(file, "PNG")
    return file.getvalue()


def retried(pool: FacePool, photo: bytes) -> tuple[object, ...]:
    """The faces, once the slot of the photo that was given up is free."""
    for _ in range(100):
        try:
            return pool.find(photo).faces
        except Overloaded:
            time.sleep(0.1)
    raise AssertionError("the slot was never freed")


def test_closed_pool_leaves_no_process(obama: bytes) -> None:
    pool = new_pool(processes=2)
    pool.find(obama)
    assert len(face_processes(os.getpid())) >= 2
    before = {child.pid for child in face_processes(os.getpid())}
    pool.close()
    assert len(before) - len(face_processes(os.getpid())) == 2
    with pytest.raises(FacesUnavailable):
        pool.find(obama)


# ---- the service


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
