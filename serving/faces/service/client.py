"""The client of the face service: a detector, dlib's encoder and a store over its Unix socket."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from serving.contract.errors import FacesUnavailable
from serving.faces.encoder import EncoderName
from serving.faces.face import Chips, Detection, DetectorModel, Encodings
from serving.faces.galleries.gallery import (
    AuditRecord,
    Candidate,
    Entry,
    GalleryInfo,
    Person,
    check_encodings,
    entry_encodings,
)
from serving.faces.service.messages import (
    Message,
    chips_blob,
    encodings_blob,
    pack,
    raise_if_error,
    read_detection,
    read_encodings,
    unpack,
)
from serving.local_calls.client import LocalClient

SLACK_SECONDS = 5.0  # beyond the service's own deadline, whose error says more


class FaceClient:
    """Call a face service. It is a FaceFinder, a FaceEncoder (dlib's) and a Store; safe to share between threads.

    path: of the service's socket. timeout_seconds: the service's own deadline.
    Every method may raise FacesUnavailable.
    """

    def __init__(self, path: str, *, timeout_seconds: float) -> None:
        self._client = LocalClient(path)
        self._timeout_seconds = timeout_seconds + SLACK_SECONDS

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    # ---- FaceFinder and FaceEncoder

    def find(self, data: bytes, model: DetectorModel = "hog", *, retry: bool = True) -> Detection:
        """See DlibDetector.find."""
        return read_detection(self._ask(Message({"op": "find", "model": model, "retry": retry}, [data])))

    def encode(self, chips: Chips) -> Encodings:
        """See DlibEncoder.encode."""
        return read_encodings(self._ask(Message({"op": "encode"}, [chips_blob(chips)])).blobs[0])

    @cached_property
    def name(self) -> EncoderName:
        """The encoder whose vectors `encode` returns."""
        return EncoderName(**self._ask(Message({"op": "name"})).header)

    # ---- Store

    def galleries(self) -> Sequence[GalleryInfo]:
        return [GalleryInfo(**row) for row in self._result("galleries")]

    def drop(self, gallery: str) -> int:
        return int(self._result("drop", gallery=gallery))

    def enrol(
        self, gallery: str, entries: Sequence[Entry], *, encoder: str, replace: bool = False, expires: str | None = None
    ) -> int:
        photos = [entry.photo for entry in entries if entry.photo is not None]
        numbers = iter(range(len(photos)))
        rows = [
            {
                "person": entry.person,
                "photo_sha256": entry.photo_sha256,
                "quality": entry.quality,
                "photo": None if entry.photo is None else next(numbers),
            }
            for entry in entries
        ]
        args = {"gallery": gallery, "encoder": encoder, "replace": replace, "expires": expires}
        blobs = [encodings_blob(entry_encodings(entries)), *photos]
        return int(self._ask(Message({"op": "enrol", "args": args, "entries": rows}, blobs)).header["result"])

    def forget(self, gallery: str, person: str) -> int:
        return int(self._result("forget", gallery=gallery, person=person))

    def people(self, gallery: str) -> Sequence[Person]:
        return [Person(**row) for row in self._result("people", gallery=gallery)]

    def count(self, gallery: str) -> int:
        return int(self._result("count", gallery=gallery))

    def nearest(self, gallery: str, encodings: Encodings, k: int, *, encoder: str) -> Sequence[Sequence[Candidate]]:
        args = {"gallery": gallery, "k": k, "encoder": encoder}
        blob = encodings_blob(check_encodings(encodings))
        found = self._ask(Message({"op": "nearest", "args": args}, [blob])).header["result"]
        return [[Candidate(**candidate) for candidate in row] for row in found]

    def owner(self, gallery: str, photo_sha256: str) -> str | None:
        owner: str | None = self._result("owner", gallery=gallery, photo_sha256=photo_sha256)
        return owner

    def audit(self) -> Sequence[AuditRecord]:
        return [AuditRecord(**row) for row in self._result("audit")]

    # ---- the socket

    def _result(self, op: str, **args: Any) -> Any:
        return self._ask(Message({"op": op, "args": args})).header["result"]

    def _ask(self, message: Message) -> Message:
        try:
            return raise_if_error(unpack(self._client.ask(pack(message), self._timeout_seconds)))
        except TimeoutError as exc:  # a subclass of OSError, so it comes first
            raise FacesUnavailable("The face service does not answer in time.", hint="Try again in a moment.") from exc
        except OSError as exc:
            raise FacesUnavailable(
                f"The face service at {self._client.path or 'no socket'} cannot be reached: {exc}",
                hint="Is it running? `sightline serve` starts it; try again in a moment.",
            ) from exc
