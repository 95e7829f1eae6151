"""The Dockerfiles, checked by reading them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docker.image import ROOT, context_sources, instructions

DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
each = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)


def test_the_images_are_there() -> None:
    assert [path.stem for path in DOCKERFILES] == ["export", "gateway", "model-server"]


@each
def test_hadolint_has_nothing_to_say(dockerfile: Path) -> None:
    hadolint = Path(shutil.which("hadolint") or ROOT / ".venv/bin/hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, "--format", "json", dockerfile], capture_output=True, text=True, check=False)
    assert json.loads(done.stdout) == []


@each
def test_what_is_copied_exists_and_is_in_the_context(dockerfile: Path) -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    allowed = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    sources = context_sources(dockerfile)
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(source == entry or source.startswith(f"{entry}/") for entry in allowed), f"{source} is ignored"


@each
def test_bases_are_pinned_and_the_last_user_is_not_root(dockerfile: Path) -> None:
    words = instructions(dockerfile)
    stages: set[str] = set()
    for keyword, rest in words:
        if keyword == "FROM":
            base, _, name = rest.partition(" AS ")
            assert base in stages or re.search(r"@sha256:[0-9a-f]{64}$|:\d+\.\d+\.\d+-", base), base
            stages.add(name)
    users = [rest for keyword, rest in words if keyword == "USER"]
    assert users
    assert users[-1] == "65532:65532"


@each
def test_tools_are_those_of_the_makefile(dockerfile: Path) -> None:
    version = re.search(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert version is not None
    assert f"uv=={version[1]} " in dockerfile.read_text()
    setuptools = re.search(r"setuptools==(\S+)", dockerfile.read_text())
    assert setuptools is not None
    assert f"setuptools=={setuptools[1]} " in (ROOT / "locks" / "serve.txt").read_text()
