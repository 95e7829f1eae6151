"""Exports that run beside a service, and how far they are: a folder with one JSON file per model.

`sightline serve` creates the files and removes those of exports that are done; a running export updates its own.
"""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

Stage = Literal["waiting", "running", "failed"]


@dataclass(frozen=True, slots=True)
class ExportState:
    """One export. detail: what it is doing, such as `epoch 3 of 10`. progress: 0-1; None where it is not known."""

    model: str
    state: Stage
    detail: str = ""
    progress: float | None = None

    def __str__(self) -> str:
        return f"{self.model} ({self.detail or self.state})"


def write_state(file: Path, state: ExportState) -> None:
    """Write a state with one rename: a reader never sees half of one."""
    draft = file.with_suffix(".tmp")
    draft.write_text(json.dumps(asdict(state)), encoding="utf-8")
    os.replace(draft, file)


def update_state(file: Path, detail: str, progress: float | None) -> None:
    """Replace what a running export is doing. Raises OSError where the service has removed its folder."""
    write_state(file, replace(read_state(file), detail=detail, progress=progress))


def read_state(file: Path) -> ExportState:
    """Read one state."""
    return ExportState(**json.loads(file.read_text(encoding="utf-8")))


def read_states(folder: Path | None) -> list[ExportState]:
    """Read the states of all exports, in the order of their files' names; none where there is no folder."""
    states = []
    for file in sorted(folder.glob("*.json")) if folder else ():
        try:
            states.append(read_state(file))
        except FileNotFoundError:  # done since it was listed
            continue
    return states
