"""The answers of `sightline faces`, as rows for JSON and tables, from either of two sources.

`LocalFaces` works on the galleries themselves, `RemoteFaces` asks a running service; both answer in the same rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from sightline.errors import SightlineError, sentences
from sightline.faces import (
    CompareArguments,
    EnrolArguments,
    EnrolledPhoto,
    FaceComparison,
    Gallery,
    Identified,
    IdentifyArguments,
    Person,
)

from clients.commands import printable
from serving.contract import errors as contract

Row = dict[str, Any]
AnyError = SightlineError | contract.SightlineError


class FaceAnswers(Protocol):
    """A source of answers. Every method may raise the errors of the store, the face processes or the service."""

    def enrol(self, files: Sequence[tuple[Path, str]], arguments: EnrolArguments) -> Iterator[Row]:
        """Enrol (photo, person) one by one: {file, person, status, why, code, reasons}.

        status: enrolled, already, refused or failed.
        """
        ...

    def identify(self, file: Path, arguments: IdentifyArguments, *, framed: bool) -> tuple[Row, bytes | None]:
        """Name the faces of a photo: {file, faces, tolerance, known, tried}, or {file, error, code, hint}.

        framed: return the annotated picture, too.
        """
        ...

    def compare(self, one: Path, other: Path, arguments: CompareArguments) -> FaceComparison:
        """Compare the largest faces of two photos."""
        ...

    def people(self, gallery: str) -> Sequence[Person]:
        """List the people of a gallery."""
        ...

    def galleries(self) -> Sequence[Gallery]:
        """List the galleries."""
        ...

    def forget(self, gallery: str, person: str) -> int:
        """Forget a person. Returns how many encodings there were."""
        ...

    def close(self) -> None:
        """Close the store or the connections."""
        ...


def named_files(folder: Path) -> list[tuple[Path, str]]:
    """List the photos of a folder and whose they are, in order: `ada.jpg` is ada's, and so is `ada/anything.jpg`."""
    found = [(path, path.stem) for path in folder.iterdir() if path.is_file()]
    for person in (path for path in folder.iterdir() if path.is_dir()):
        found += [(path, person.name) for path in person.rglob("*") if path.is_file()]
    return sorted((path, name) for path, name in found if not path.name.startswith("."))


def enrolled_row(path: Path, person: str, photo: EnrolledPhoto) -> Row:
    """The row of a photo that was judged."""
    status = "refused" if photo.reasons else "enrolled" if photo.stored else "already"
    why = " ".join(f"{reason.text}{_numbers(reason.measured, reason.limit)}" for reason in photo.reasons)
    head = {"file": printable(str(path)), "person": person, "status": status}
    return {**head, "why": why, "code": None, "reasons": [asdict(reason) for reason in photo.reasons]}


def failed_row(path: Path, person: str, error: AnyError) -> Row:
    """The row of a photo that could not be judged."""
    head = {"file": printable(str(path)), "person": person, "status": "failed"}
    return {**head, "why": sentences(error.detail, error.hint), "code": error.code, "reasons": []}


def identified_row(file: Path, found: Identified) -> Row:
    """The row of a photo that was searched for faces."""
    answer = asdict(found)
    del answer["request_id"]
    return {"file": printable(str(file)), **answer}


def unusable_row(file: Path, error: AnyError) -> Row:
    """The row of a photo that cannot be searched."""
    return {"file": printable(str(file)), "error": error.detail, "code": error.code, "hint": error.hint}


def _numbers(measured: float | None, limit: float | None) -> str:
    return "" if measured is None or limit is None else f" ({measured:.3g}; limit {limit:g})"
