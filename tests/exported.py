"""Folders that are costly to make, models that tests export above all, kept in .test-cache/ from run to run."""

import fcntl
import hashlib
import inspect
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".test-cache"
SOURCES = ("export", "serving/contract", "serving/runtimes")  # what decides what an export writes
PACKAGES = ("ai-edge-litert", "keras", "numpy", "pillow", "scikit-learn", "tensorflow")


def cached(name: str, make: Callable[[Path], object], *data: Path) -> Path:
    """The folder that `make` fills. It is made once, whichever process of a test run asks first.

    It is made anew when the file that defines `make`, the product's code that exports, a package that it uses or a file
    in `data` changes. Read it, or copy it; never write into it.
    """
    source = inspect.getsourcefile(make)
    assert source is not None
    files = [path for room in SOURCES for path in (ROOT / room).rglob("*.py")]
    files += [path for place in data for path in (place.rglob("*") if place.is_dir() else [place]) if path.is_file()]
    key = digest([Path(source), Path(__file__), *sorted(files)])
    CACHE.mkdir(exist_ok=True)
    folder = CACHE / f"{name}-{key}"
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            for old in CACHE.glob(f"{name}-{'[0-9a-f]' * len(key)}"):
                shutil.rmtree(old)
            draft = Path(tempfile.mkdtemp(prefix=f"draft-{name}-", dir=CACHE))
            try:
                make(draft)
                draft.rename(folder)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
    return folder


def digest(files: Iterable[Path]) -> str:
    """A name for the contents of the files, and for the Python and the packages that work on them."""
    total = hashlib.sha256(repr([sys.version, *((package, version(package)) for package in PACKAGES)]).encode())
    for path in files:
        total.update(str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name).encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]
