"""The store of a file that does not exist: nobody is known there, and reading does not make it."""

from collections.abc import Iterator, Sequence

from serving.contract.errors import GalleryUnavailable
from serving.faces.face import Encodings
from serving.faces.galleries.gallery import (
    DEFAULT_GALLERY,
    AuditRecord,
    Candidate,
    Entry,
    GalleryInfo,
    Person,
    check_encodings,
    check_gallery,
    check_person,
    unknown_gallery,
    unknown_person,
)


class EmptyStore:
    """A Store without anybody. Enrolling raises GalleryUnavailable."""

    def galleries(self) -> Sequence[GalleryInfo]:
        return []

    def drop(self, gallery: str) -> int:
        raise unknown_gallery(check_gallery(gallery))

    def enrol(
        self,
        gallery: str,  # noqa: ARG002
        entries: Sequence[Entry],  # noqa: ARG002
        *,
        encoder: str,  # noqa: ARG002
        replace: bool = False,  # noqa: ARG002
        expires: str | None = None,  # noqa: ARG002
    ) -> int:
        raise GalleryUnavailable("The store was opened for reading only.")

    def forget(self, gallery: str, person: str) -> int:
        name = check_person(person)
        _require_default(gallery)
        raise unknown_person(gallery, name)

    def people(self, gallery: str) -> Sequence[Person]:
        _require_default(gallery)
        return []

    def count(self, gallery: str) -> int:
        _require_default(gallery)
        return 0

    def nearest(self, gallery: str, encodings: Encodings, k: int, *, encoder: str) -> Sequence[Sequence[Candidate]]:  # noqa: ARG002
        _require_default(gallery)
        return [[] for _ in check_encodings(encodings)]

    def owner(self, gallery: str, photo_sha256: str) -> str | None:  # noqa: ARG002
        _require_default(gallery)
        return None

    def entries(self, gallery: str) -> Iterator[Entry]:
        _require_default(gallery)
        return iter(())

    def audit(self) -> Sequence[AuditRecord]:
        return []

    def close(self) -> None:
        """Nothing is open."""


def _require_default(gallery: str) -> None:
    """Raise UnknownGallery for any but the default gallery, which always exists."""
    if check_gallery(gallery) != DEFAULT_GALLERY:
        raise unknown_gallery(gallery)
