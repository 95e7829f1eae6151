"""The configuration of a model: its name, its folder, the versions that are wanted, its labels."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest versions. count: at least 1."""

    count: int = 1

    def select(self, versions: Iterable[int]) -> set[int]:
        return set(sorted(versions)[-self.count :])


@dataclass(frozen=True, slots=True)
class All:
    """Every version on disk."""

    def select(self, versions: Iterable[int]) -> set[int]:
        return set(versions)


@dataclass(frozen=True, slots=True)
class Specific:
    """These versions, where they are on disk."""

    versions: frozenset[int]

    def select(self, versions: Iterable[int]) -> set[int]:
        return set(versions) & self.versions


Policy = Latest | All | Specific


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model. base_path: the folder whose children are versions. labels: name to version."""

    name: str
    base_path: Path
    policy: Policy = Latest()
    labels: Mapping[str, int] = field(default_factory=dict)
