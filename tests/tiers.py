"""The tiers of the tests, and the guard that keeps the first one quick.

- unit: no TensorFlow, no child process. `make test-fast` runs these alone.
- integration: real processes, TensorFlow, browsers, databases.
- slow: minutes, or full-size trainings and their accuracy. `make test-slow`.

A test belongs to integration or slow if its folder does (FOLDERS), if it or its file is marked so, or if it uses a
fixture that starts something real (REAL). Everything else is unit, and a unit test that starts a child process or
imports TensorFlow fails.
"""

import ast
import multiprocessing.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
FOLDERS = (TESTS / "e2e", TESTS / "docker", TESTS / "export" / "families", TESTS / "export" / "adoption")
LONGEST = (TESTS / "e2e", TESTS / "export", TESTS / "model_server", TESTS / "faces")
REAL = {"bars_version", "face_encoder", "pool", "postgres_server", "redis_url"}
TENSORFLOW = ("tensorflow.python", "keras")  # not tensorflow.core: its messages load in a moment (runtimes/messages.py)
CHILDREN = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "multiprocessing.spawn"}
MARK_IT = "mark it (or its file, by pytestmark) with pytest.mark.integration"


class Tiers:
    """A plugin of pytest: give every test its tier, and hold unit tests to theirs."""

    def __init__(self, unit_only: bool) -> None:
        self._unit_only = unit_only
        self._guarded = False
        spawn = multiprocessing.util.spawnv_passfds

        def spawnv_passfds(*arguments: Any) -> int:
            sys.audit("multiprocessing.spawn")  # Python itself raises no event for it
            return spawn(*arguments)

        multiprocessing.util.spawnv_passfds = spawnv_passfds  # type: ignore[attr-defined]
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._guarded:
            return
        if event in CHILDREN:
            raise AssertionError(f"a unit test starts a child process ({event} {arguments[:1]}): {MARK_IT}")
        if event == "import" and f"{arguments[0]}.".startswith(tuple(f"{name}." for name in TENSORFLOW)):
            raise AssertionError(f"a unit test imports {arguments[0]}: {MARK_IT}")

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self) -> Iterator[None]:
        """Guard the imports of the files that hold unit tests."""
        return (yield from self._held(self._unit_only))

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """With `-m unit`, do not even import the files that hold no unit test: most of them import TensorFlow."""
        beyond = self._unit_only and (in_folders(collection_path) or is_marked_beyond_unit(collection_path))
        return True if beyond else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=begin_with)
        for item in items:
            if in_folders(item.path) or not REAL.isdisjoint(getattr(item, "fixturenames", ())):
                item.add_marker("integration")
            if not any(item.get_closest_marker(tier) for tier in ("integration", "slow")):
                item.add_marker("unit")
            elif item.get_closest_marker("slow") is None:
                item.add_marker("integration")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        return (yield from self._held(item.get_closest_marker("unit") is not None))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        return (yield from self._held(item.get_closest_marker("unit") is not None))

    def _held(self, guarded: bool) -> Iterator[None]:
        self._guarded = guarded
        try:
            return (yield)
        finally:
            self._guarded = False


def begin_with(item: pytest.Item) -> int:
    """A key to sort by: what takes longest first, so that no worker is left alone with it at the end."""
    return next((n for n, folder in enumerate(LONGEST) if folder in item.path.parents), len(LONGEST))


def in_folders(path: Path) -> bool:
    """True for what lies in a folder of integration tests."""
    return any(path.is_relative_to(folder) for folder in FOLDERS)


def is_marked_beyond_unit(file: Path) -> bool:
    """True for a file of tests that marks all of them as integration or slow."""
    if file.suffix != ".py":
        return False
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "pytestmark" for t in node.targets):
            return any(f"mark.{tier}" in ast.unparse(node.value) for tier in ("integration", "slow"))
    return False
