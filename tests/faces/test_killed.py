"""kill -9 in the midst of enrolling: nothing that was acknowledged is lost, and the same command goes on."""

import contextlib
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance, ImageOps

from serving.faces.galleries.sqlite_store import SqliteStore
from tests.faces.running import ROOT, faces_over_http

pytest.importorskip("dlib")

pytestmark = pytest.mark.integration

PORTRAITS = ("known/biden.jpg", "known/obama.jpg", "unknown/alex_lacamoire2.jpg", "unknown/rose_leslie2.jpg")
SIDE = 400  # pixels: small, so that what is killed is many enrolments rather than one look
PAUSES = (0.0, 0.05, 0.2, 0.5, 1.0)  # seconds between what was waited for and the kill
FEW = (2, 12)
ALL = pytest.param(20, 500, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])


def different_photos(folder: Path, portraits: Path, count: int) -> list[tuple[Path, str]]:
    """So many photos of four persons, each of them a little different, in a folder for each person."""
    rng = random.Random(500)
    images = [(Path(name).stem, Image.open(portraits / name).convert("RGB")) for name in PORTRAITS]
    made: list[tuple[Path, str]] = []
    for number in range(count):
        person, image = images[number % len(images)]
        left, top, right, bottom = (rng.uniform(0, 0.06) for _ in range(4))
        width, height = image.size
        box = (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
        photo = ImageOps.contain(image.crop(box), (SIDE, SIDE))
        photo = ImageOps.mirror(photo) if rng.random() < 0.5 else photo
        photo = ImageEnhance.Brightness(photo).enhance(rng.uniform(0.85, 1.15))
        path = folder / person / f"{number:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.save(path, quality=92)
        made.append((path, person))
    assert len({hashlib.sha256(path.read_bytes()).digest() for path, _ in made}) == count
    return made


def stored(file: Path) -> set[str]:
    """The SHA-256 of every photo that is enrolled; the file is sound."""
    with contextlib.closing(sqlite3.connect(file)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    store = SqliteStore(file)
    held = [entry.photo_sha256 for entry in store.entries("default")]
    store.close()
    assert len(held) == len(set(held))
    return set(held)


def count(file: Path) -> int:
    """Count the encodings in the file from outside; 0 before there is a table."""
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(file)) as db:
        return int(db.execute("SELECT count(*) FROM face").fetchone()[0])
    return 0


@pytest.mark.parametrize(("kills", "photos_count"), [FEW, ALL])
def test_folder_is_enrolled_in_spite_of_kills(photos: Path, tmp_path: Path, kills: int, photos_count: int) -> None:
    made = different_photos(tmp_path / "people", photos, photos_count)
    file = tmp_path / "faces.db"
    command = [sys.executable, "-m", "sightline", "faces", "--store", f"sqlite:///{file}"]
    command += ["enrol", str(tmp_path / "people"), "--json"]
    acknowledged: set[str] = set()
    for turn in range(kills):
        wanted = (turn + 1) * photos_count // (kills + 1)
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
        while count(file) < wanted and process.poll() is None:
            time.sleep(0.02)
        time.sleep(PAUSES[turn % len(PAUSES)])
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        held = stored(file)
        assert acknowledged <= held
        assert len(held) >= wanted
        acknowledged = held
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    rows = json.loads(done.stdout)["photos"]
    statuses = [row["status"] for row in rows]
    assert len(rows) == len(made)
    assert statuses.count("already") == len(acknowledged)
    assert statuses.count("already") + statuses.count("enrolled") == len(stored(file)) > 0.9 * photos_count
    assert acknowledged < stored(file)


@pytest.mark.parametrize(("kills", "photos_count"), [FEW, ALL])
def test_enrolment_over_http_survives_kills_of_the_face_service(
    photos: Path, tmp_path: Path, kills: int, photos_count: int
) -> None:
    made = different_photos(tmp_path / "people", photos, photos_count)
    file = tmp_path / "faces.db"
    acknowledged: dict[str, int] = {}
    with faces_over_http(tmp_path, f"sqlite:///{file}") as service, service.client() as client:
        for turn, name in enumerate([*["faces"] * (kills - 1), "gateway"]):
            share = made[turn * photos_count // kills : (turn + 1) * photos_count // kills]
            for path, person in share[:-1]:
                answer = client.post(f"/faces/people/{person}", files={"image": path.read_bytes()})
                assert answer.status_code in (200, 422), answer.text
                if answer.is_success:
                    acknowledged[hashlib.sha256(path.read_bytes()).hexdigest()] = turn
            # one more is on its way when the process is killed: acknowledged or not, but never half
            sender = subprocess.Popen(
                ["curl", "-s", "-F", f"image=@{share[-1][0]}", f"{service.url}/faces/people/{share[-1][1]}"],
                stdout=subprocess.PIPE,
            )
            time.sleep(PAUSES[turn % len(PAUSES)])
            service.processes[name].kill()
            service.processes[name].wait()
            answered = sender.communicate()[0]
            if b'"stored":true' in answered:
                acknowledged[hashlib.sha256(share[-1][0].read_bytes()).hexdigest()] = turn
            if name == "gateway":
                break  # its workers end with it, at their own pace; the port is not free at once
            service.start(name)
            service.wait()
            known = client.get("/faces/people").json()["known"]
            assert len(acknowledged) <= known <= len(acknowledged) + turn + 1
    assert set(acknowledged) <= stored(file)
    assert len(acknowledged) > 0.8 * photos_count
