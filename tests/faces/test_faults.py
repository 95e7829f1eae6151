"""A database that is away, locked, full or damaged: each its own code and advice, over HTTP and at the terminal."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faces.conftest import Postgres
from tests.faces.running import ROOT, FacesOverHttp, faces_over_http

pytest.importorskip("dlib")

pytestmark = pytest.mark.integration


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of this test's own, that is not running yet."""
    postgres = Postgres()
    yield postgres
    postgres.remove()


@pytest.fixture
def portrait(photos: Path) -> Path:
    return photos / "known" / "obama.jpg"


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), body
    assert body["detail"]
    assert body["hint"]
    return body


def enrolled(client: httpx.Client, name: str, photo: Path) -> httpx.Response:
    return client.post(f"/faces/people/{name}", files={"image": photo.read_bytes()})


def known(client: httpx.Client) -> list[str]:
    return [row["name"] for row in client.get("/faces/people").raise_for_status().json()["people"]]


def sightline(store: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """`sightline faces --store ...` in a process of its own."""
    command = [sys.executable, "-m", "sightline", "faces", "--store", store, *map(str, arguments)]
    environ = {name: value for name, value in os.environ.items() if name != "SIGHTLINE_FACES_URL"}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environ)


@pytest.mark.slow
def test_postgres_goes_away_and_comes_back_under_a_running_service(
    postgres: Postgres, portrait: Path, tmp_path: Path
) -> None:
    with faces_over_http(tmp_path, postgres.url) as service, service.client() as client:
        problem(client.get("/faces/people"), 503, "gallery_unavailable")  # away from the start: nothing has ended
        postgres.start()
        assert enrolled(client, "obama", portrait).status_code == 200
        for _ in range(2):
            postgres.stop()
            answer = client.post("/faces/identify", files={"image": portrait.read_bytes()})
            assert "PostgreSQL" in problem(answer, 503, "gallery_unavailable")["hint"]
            assert "Retry-After" in answer.headers
            problem(enrolled(client, "barack", portrait), 503, "gallery_unavailable")
            postgres.start()
            assert known(client) == ["obama"]
            (face,) = client.post("/faces/identify", files={"image": portrait.read_bytes()}).json()["faces"]
            assert face["name"] == "obama"
        postgres.stop()
    told = sightline(postgres.url, "list")
    assert told.returncode == 1
    assert "Is PostgreSQL running" in told.stderr


@pytest.fixture
def service(tmp_path: Path) -> Iterator[FacesOverHttp]:
    """A gallery in tmp_path/faces.db, behind HTTP."""
    with faces_over_http(tmp_path, f"sqlite:///{tmp_path}/faces.db") as service:
        yield service


def test_locked_file_is_busy_for_writers_and_readable(service: FacesOverHttp, portrait: Path, tmp_path: Path) -> None:
    with service.client() as client:
        assert enrolled(client, "obama", portrait).status_code == 200
        other = sqlite3.connect(tmp_path / "faces.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        problem(client.delete("/faces/people/obama"), 503, "gallery_busy")
        assert known(client) == ["obama"]
        told = sightline(f"sqlite:///{tmp_path}/faces.db", "forget", "obama")
        assert told.returncode == 1
        assert "try again" in told.stderr
        other.execute("ROLLBACK")
        other.close()
        assert client.delete("/faces/people/obama").status_code == 200


def test_damaged_file_is_said_so_and_a_backup_is_taken_up(portrait: Path, tmp_path: Path) -> None:
    (tmp_path / "faces.db").write_bytes(b"not a database, by any means" * 999)
    store = f"sqlite:///{tmp_path}/faces.db"
    with faces_over_http(tmp_path, store) as service, service.client() as client:
        problem(client.get("/faces/people"), 500, "gallery_corrupt")
        problem(enrolled(client, "obama", portrait), 500, "gallery_corrupt")
        told = sightline(store, "enrol", portrait.parent)
        assert (told.returncode, "not a gallery" in told.stderr, "Traceback" in told.stderr) == (1, True, False)
        (tmp_path / "faces.db").unlink()
        assert known(client) == []
        assert enrolled(client, "obama", portrait).status_code == 200


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for an empty gallery and little more."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", disk], check=False).returncode:
        pytest.skip("no file system of its own may be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_full_disk_stores_nothing_and_says_so(small_disk: Path, portrait: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{small_disk}/faces.db"
    with faces_over_http(tmp_path, store) as service, service.client() as client:
        assert enrolled(client, "obama", portrait).status_code == 200
        (small_disk / "filler").write_bytes(bytes(_free(small_disk)))
        photo = portrait.parent / "biden.jpg"
        answer = client.post("/faces/people/biden?keep_photos=true", files={"image": photo.read_bytes()})
        assert "Make room" in problem(answer, 507, "gallery_full")["hint"]
        assert known(client) == ["obama"]
        told = sightline(store, "enrol", portrait.parent, "--keep-photos")
        assert told.returncode == 1
        assert "Make room" in told.stderr
        (small_disk / "filler").unlink()
        assert enrolled(client, "biden", photo).status_code == 200
        assert known(client) == ["biden", "obama"]


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
