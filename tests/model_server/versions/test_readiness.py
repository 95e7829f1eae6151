"""Readiness since the start, with loads that the test ends."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from serving.model_server.versions.repository import Repository, RepositorySettings
from serving.runtimes.status import CallError, failed_precondition
from tests.waiting import until


class Loaded:
    """A version in memory."""

    def close(self) -> None:
        """Free nothing."""


@dataclass
class Loads:
    """Loads that wait until the test lets them end; `broken` ones fail."""

    ended: dict[str, threading.Event] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)

    def of(self, name: str, version: int) -> threading.Event:
        return self.ended.setdefault(f"{name}/{version}", threading.Event())

    def load(self, name: str, version: int, path: Path) -> Loaded:  # noqa: ARG002
        self.of(name, version).wait(30)
        if f"{name}/{version}" in self.broken:
            raise failed_precondition("it is broken")
        return Loaded()


@pytest.fixture
def loads() -> Loads:
    return Loads()


@pytest.fixture
def repository(tmp_path: Path, loads: Loads) -> Iterator[Repository[Loaded]]:
    for version in ("a/1", "a/2", "b/7"):
        (tmp_path / version).mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    settings = RepositorySettings(poll_seconds=0.05, fall_back=True)
    repository = Repository(loads.load, settings, models_dir=tmp_path)
    repository.start()
    repository.wait_until_listed()
    yield repository
    for event in loads.ended.values():
        event.set()
    repository.close()


def test_every_version_that_was_on_disk_is_waited_for(repository: Repository[Loaded], loads: Loads) -> None:
    assert repository.readiness().loading == (("a", 2), ("b", 7))
    loads.of("a", 2).set()
    until(lambda: repository.readiness().available == ("a",))
    assert repository.readiness().loading == (("b", 7),)
    loads.of("b", 7).set()
    until(lambda: repository.readiness().available == ("a", "b"))
    assert not repository.readiness().loading


def test_a_version_that_failed_is_named_and_the_older_one_is_waited_for(
    repository: Repository[Loaded], loads: Loads
) -> None:
    loads.broken.add("a/2")
    loads.of("a", 2).set()
    until(lambda: repository.readiness().failed)
    ((name, version, error),) = repository.readiness().failed
    assert (name, version) == ("a", 2)
    assert isinstance(error, CallError)
    assert "it is broken" in str(error)
    assert repository.readiness().loading == (("a", 1), ("b", 7))
    loads.of("a", 1).set()
    until(lambda: repository.readiness().loading == (("b", 7),))
    assert repository.readiness().available == ("a",)


def test_what_comes_later_is_not_waited_for(repository: Repository[Loaded], loads: Loads, tmp_path: Path) -> None:
    for name, version in (("a", 2), ("b", 7)):
        loads.of(name, version).set()
    until(lambda: not repository.readiness().loading)
    (tmp_path / "a" / "3").mkdir()
    (tmp_path / "c" / "1").mkdir(parents=True)
    until(lambda: "c/1" in loads.ended and "a/3" in loads.ended)
    assert not repository.readiness().loading
    loads.of("c", 1).set()
    until(lambda: "c" in repository.readiness().available)
