"""`RemoteFaces`: the answers of a running service to `sightline faces`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sightline.client import Client
from sightline.errors import TOO_MUCH, BadImage, DeadlineExceeded, SightlineError
from sightline.faces import (
    CompareArguments,
    EnrolArguments,
    FaceComparison,
    Gallery,
    IdentifyArguments,
    Person,
    PhotosRefused,
)

from clients.face_answers import Row, enrolled_row, failed_row, identified_row, unusable_row

# Errors of one photo beside those of BadImage; the next photo may succeed.
PHOTO_CODES = ("invalid_name", "face_process_died")


class RemoteFaces:
    """A running service."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def enrol(self, files: Sequence[tuple[Path, str]], arguments: EnrolArguments) -> Iterator[Row]:
        replaced: set[str] = set()  # a person's first accepted photo replaces, the others are added
        for path, person in files:
            replace = arguments.get("replace", False) and person not in replaced
            row = self._enrol(path, person, {**arguments, "replace": replace})
            if row["status"] in ("enrolled", "already"):
                replaced.add(person)
            yield row

    def _enrol(self, path: Path, person: str, arguments: EnrolArguments) -> Row:
        try:
            (photo,) = self._client.faces.enrol(person, path, **arguments).photos
        except PhotosRefused as exc:
            (photo,) = exc.photos
        except SightlineError as exc:
            if not concerns_one_photo(exc):
                raise
            return failed_row(path, person, exc)
        return failed_row(path, person, photo.error) if photo.error else enrolled_row(path, person, photo)

    def identify(self, file: Path, arguments: IdentifyArguments, *, framed: bool) -> tuple[Row, bytes | None]:
        try:
            found = self._client.faces.identify(file, **arguments)
            picture = self._client.faces.annotate(file, **arguments) if framed else None
        except SightlineError as exc:
            if not concerns_one_photo(exc):
                raise
            return unusable_row(file, exc), None
        return identified_row(file, found), picture

    def compare(self, one: Path, other: Path, arguments: CompareArguments) -> FaceComparison:
        return self._client.faces.compare(one, other, **arguments)

    def people(self, gallery: str) -> Sequence[Person]:
        return self._client.faces.people(gallery=gallery)

    def galleries(self) -> Sequence[Gallery]:
        return self._client.faces.galleries()

    def forget(self, gallery: str, person: str) -> int:
        return self._client.faces.forget(person, gallery=gallery)

    def close(self) -> None:
        self._client.close()


def concerns_one_photo(error: SightlineError) -> bool:
    """Tell whether the next photo may succeed."""
    return isinstance(error, BadImage | DeadlineExceeded) or error.status == TOO_MUCH or error.code in PHOTO_CODES
