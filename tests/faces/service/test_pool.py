"""The face processes and the queue in front of them, as they run."""

import contextlib
import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from PIL import Image

from serving.contract.errors import DeadlineExceeded, FaceProcessDied, FacesUnavailable, Overloaded
from serving.faces.service.pool import FacePool
from tests.faces.service.face_processes import face_processes, new_pool

pytestmark = pytest.mark.integration


@pytest.fixture
def obama(photos: Path) -> bytes:
    return (photos / "known" / "obama.jpg").read_bytes()


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
