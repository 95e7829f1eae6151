"""Build and run our Dockerfiles without a Docker engine.

    python -m tests.docker.image docker/gateway.Dockerfile faces      # builds it and prints its size

A stand-in for BuildKit that carries out the instructions our files use, into a root file system, and refuses others.
RUN lines run unchanged, in bubblewrap, over this machine's /usr instead of python:3.11-slim; the last stage of the
gateway is built from the Debian packages that distroless/python3-debian12 consists of. Not covered: layers, their
caching, and whether the base images exist under their names.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
DISTROLESS = "gcr.io/distroless/python3-debian12"
# private/repos/deb and python3/python.bzl of the distroless repository: base, cc and python3
DISTROLESS_PACKAGES = """
    base-files netbase tzdata media-types libc6 libssl3 libgcc-s1 libgomp1 libstdc++6 libbz2-1.0 libdb5.3 libexpat1
    liblzma5 libsqlite3-0 libuuid1 libncursesw6 libtinfo6 python3-distutils zlib1g libcom-err2 libcrypt1
    libgssapi-krb5-2 libk5crypto3 libkeyutils1 libkrb5-3 libkrb5support0 libnsl2 libreadline8 libtirpc3 libffi8
    libpython3.11-minimal libpython3.11-stdlib python3.11-minimal
"""
HOST = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/opt")  # in place of python:3.11-slim
DOWNLOADS = ("PIP_", "UV_", "SSL_", "HTTP", "NO_PROXY", "http", "no_proxy")  # how this machine reaches packages


@dataclass
class Stage:
    """A stage and its settings. root: its files, without those of a base that the host replaces."""

    base: str
    root: Path
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Its root holds a whole operating system."""
        return self.base.startswith(DISTROLESS)

    def size(self) -> int:
        """Bytes of its files, without those of a base that the host replaces."""
        return size_of(self.root)


def size_of(path: Path) -> int:
    """Sum the bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Return (KEYWORD, rest) of each instruction, without comments and with continued lines joined."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)
    ]


def context_sources(dockerfile: Path) -> list[str]:
    """List the paths that COPY takes from the build's context."""
    copies = [rest.split() for word, rest in instructions(dockerfile) if word == "COPY"]
    return [source for words in copies if not words[0].startswith("--from") for source in words[:-1]]


def build(dockerfile: Path, target: str, work: Path) -> Stage:
    """Carry out the stages that `target` needs. Raises ValueError for an unknown instruction."""
    stages: dict[str, list[tuple[str, str]]] = {}
    bases: dict[str, str] = {}
    name = ""
    for word, rest in instructions(dockerfile):
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages[name], bases[name] = [], base
        else:
            stages[name].append((word, rest))
    made: dict[str, Stage] = {}

    def make(name: str) -> Stage:
        if name not in made:
            stage = _begin(bases[name], work / name, make if bases[name] in stages else None)
            for word, rest in stages[name]:
                _carry_out(stage, word, rest, make)
            made[name] = stage
        return made[name]

    return make(target)


def sandbox(
    stage: Stage,
    *,
    binds: Mapping[Path, str] | None = None,
    volumes: Mapping[Path, str] | None = None,
    writable: bool = False,
) -> list[str]:
    """Return bubblewrap's command line for running a command in the stage.

    Only /tmp and the volumes are writable, and the root while the image is built. binds, volumes: path to mount point.
    """
    root = ["--bind" if writable else "--ro-bind", str(stage.root), "/"]
    paths = [] if stage.is_whole else [path for path in HOST if os.path.exists(path)]
    host = [word for path in paths for word in ("--ro-bind", path, path)]
    user, _, group = stage.user.partition(":")
    words = ["bwrap", *root, *host, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--die-with-parent"]
    words += ["--unshare-user", "--uid", user, "--gid", group or user]
    for flag, mounts in (("--ro-bind", binds), ("--bind", volumes)):
        for path, where in (mounts or {}).items():
            (stage.root / where.strip("/")).mkdir(parents=True, exist_ok=True)
            words += [flag, str(path), where]
    return [*words, "--chdir", stage.workdir]


def start(
    stage: Stage,
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    binds: Mapping[Path, str] | None = None,
    volumes: Mapping[Path, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start the entry point like `docker run --read-only --tmpfs /tmp IMAGE arguments`."""
    command = [*sandbox(stage, binds=binds, volumes=volumes), *stage.entrypoint, *arguments]
    with log.open("wb") as out:
        return subprocess.Popen(command, env=environment(stage, env), stdout=out, stderr=out)


def is_healthy(stage: Stage, env: Mapping[str, str]) -> bool:
    """Run the health check as the image's user."""
    command = [*sandbox(stage), *stage.healthcheck]
    return subprocess.run(command, env=environment(stage, env), capture_output=True, check=False).returncode == 0


def environment(stage: Stage, env: Mapping[str, str]) -> dict[str, str]:
    """Merge the image's variables with those of the run; nothing of this process's."""
    return {"PATH": "/usr/bin:/bin", **stage.env, **env}


def _begin(base: str, root: Path, make: object) -> Stage:
    if callable(make):
        below: Stage = make(base)
        shutil.copytree(below.root, root, symlinks=True)
        inherited = {name: value for name, value in vars(below).items() if name not in ("root", "env", "copied")}
        return Stage(**inherited, root=root, env=dict(below.env), copied=list(below.copied))
    root.mkdir(parents=True)
    stage = Stage(base, root)
    if stage.is_whole:
        _install_debian(root, DISTROLESS_PACKAGES.split())
    for folder in ("proc", "dev", "tmp", *([] if stage.is_whole else [path.strip("/") for path in HOST])):
        (root / folder).mkdir(exist_ok=True)
    return stage


def _carry_out(stage: Stage, word: str, rest: str, make: object) -> None:
    match word:
        case "RUN":
            _run(stage, rest)
        case "COPY":
            _copy(stage, rest, make)
        case "ENV":
            stage.env |= {name: value for name, _, value in (pair.partition("=") for pair in rest.split())}
        case "WORKDIR":
            stage.workdir = rest
            (stage.root / rest.strip("/")).mkdir(parents=True, exist_ok=True)
        case "USER":
            stage.user = rest
        case "ENTRYPOINT":
            stage.entrypoint, stage.command = json.loads(rest), []
        case "CMD":
            stage.command = json.loads(rest)
        case "HEALTHCHECK":
            stage.healthcheck = json.loads(rest.partition("CMD ")[2] or "[]")
        case "EXPOSE":
            pass
        case _:
            raise ValueError(f"{word} is not supported here")


def _copy(stage: Stage, rest: str, make: object) -> None:
    words = rest.split()
    if words[0].startswith("--from="):
        assert callable(make)
        other: Stage = make(words.pop(0).removeprefix("--from="))
        sources = [other.root / source.strip("/") for source in words[:-1]]
    else:
        sources = [ROOT / source for source in words[:-1]]
    target = stage.root / os.path.join(stage.workdir, words[-1]).strip("/")
    for source in sources:
        stage.copied.append(str(source))
        if source.is_dir():  # its content, as COPY does
            ignored = shutil.ignore_patterns("__pycache__") if source.is_relative_to(ROOT) else None
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, ignore=ignored)
        elif words[-1].endswith(("/", ".")):
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / source.name)
        else:
            shutil.copy2(source, target)


def _run(stage: Stage, rest: str) -> None:
    words = sandbox(stage, writable=True)
    while match := re.match(r"--mount=type=cache,target=(\S+)\s+", rest):
        cache = Path.home() / Path(match[1]).relative_to("/root")
        cache.mkdir(parents=True, exist_ok=True)
        words += ["--bind", str(cache), match[1]]
        rest = rest[match.end() :]
    downloads = {name: value for name, value in os.environ.items() if name.startswith(DOWNLOADS)}
    env = {"PATH": "/usr/bin:/bin", "HOME": "/root", **downloads, **stage.env}
    done = subprocess.run([*words, "/bin/sh", "-c", rest], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"RUN {rest}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")


def _install_debian(root: Path, packages: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", "-qq", *packages], cwd=folder, check=True, capture_output=True)
        for deb in sorted(Path(folder).glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", str(deb), str(root)], check=True)
    for top in (
        "bin",
        "sbin",
        "lib",
        "lib64",
    ):  # Debian's packages come for both layouts; a live system has merged them
        path = root / top
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, root / "usr" / top, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(path)
            path.symlink_to(f"usr/{top}")
    shutil.rmtree(root / "usr" / "share" / "doc", ignore_errors=True)
    for alias in ("python", "python3"):
        (root / "usr" / "bin" / alias).unlink(missing_ok=True)
        (root / "usr" / "bin" / alias).symlink_to("/usr/bin/python3.11")


def _main(dockerfile: str, target: str) -> None:
    with tempfile.TemporaryDirectory() as work:
        stage = build(Path(dockerfile), target, Path(work))
        what = "the image" if stage.is_whole else f"without {stage.base}"
        print(f"{dockerfile} {target}: {stage.size() / 1e6:.0f} MB, {what}")
        for path in sorted((stage.root / "app").iterdir(), key=size_of, reverse=True)[:12]:
            print(f"  {size_of(path) / 1e6:6.1f} MB  {path.name}")


if __name__ == "__main__":
    _main(*sys.argv[1:])
