"""From a photo to the people in it: identify and compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from serving.contract.errors import InvalidParameter, NoFace
from serving.faces.encoder import FaceEncoder
from serving.faces.face import Detection, DetectorModel, FoundFace, Reason, too_poor
from serving.faces.galleries.gallery import DEFAULT_GALLERY, Candidate, Store
from serving.faces.settings import MIN_SHARPNESS, MIN_SIDE, TOLERANCE, FaceSettings

CANDIDATES = 5


class FaceFinder(Protocol):
    """The protocol of a detector: DlibDetector, FacePool and FaceClient have it."""

    def find(self, data: bytes, model: DetectorModel = "hog", *, retry: bool = True) -> Detection:
        """Find all faces of a photo file, largest first. See `DlibDetector.find`."""
        ...


@dataclass(frozen=True, slots=True)
class Faces:
    """The parts that `identify`, `compare` and `enrol` work with.

    tolerance: the largest distance of two faces of one person.
    min_side (pixels), min_sharpness: of the faces that `identify` names; see Quality.
    """

    finder: FaceFinder
    encoder: FaceEncoder
    store: Store
    tolerance: float = TOLERANCE
    min_side: int = MIN_SIDE
    min_sharpness: float = MIN_SHARPNESS

    @classmethod
    def from_settings(cls, settings: FaceSettings, finder: FaceFinder, encoder: FaceEncoder, store: Store) -> "Faces":
        """Put the parts together, with the limits of the settings."""
        return cls(finder, encoder, store, settings.tolerance, settings.min_side, settings.min_sharpness)


@dataclass(frozen=True, slots=True)
class Match:
    """One face of a photo and its person.

    name: None where nobody is within the tolerance, and where there are reasons.
    candidates: the nearest persons, nearest first, within the tolerance or not; empty in an empty gallery.
    reasons: why the face cannot be told apart from others: too_small, blurred.
    """

    face: FoundFace
    name: str | None
    candidates: tuple[Candidate, ...]
    reasons: tuple[Reason, ...] = ()

    @property
    def distance(self) -> float | None:
        """Distance of the nearest candidate; None in an empty gallery."""
        return self.candidates[0].distance if self.candidates else None


@dataclass(frozen=True, slots=True)
class Identification:
    """The answer of `identify`. matches: largest face first. known: number of encodings in the gallery."""

    found: Detection
    matches: tuple[Match, ...]
    tolerance: float
    known: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """The answer of `compare`: the distance between the largest faces of two photos."""

    found: tuple[Detection, Detection]
    distance: float
    tolerance: float

    @property
    def is_same(self) -> bool:
        return self.distance <= self.tolerance


def identify(
    faces: Faces,
    photo: bytes,
    *,
    gallery: str = DEFAULT_GALLERY,
    tolerance: float | None = None,
    candidates: int = CANDIDATES,
    model: DetectorModel = "hog",
) -> Identification:
    """Name every face of a photo file; a photo without a face is an empty answer, not an error.

    tolerance: None takes that of `faces`. candidates: number of nearest persons to return for each face.
    Raises InvalidParameter, and what the finder, the encoder and the store raise.
    """
    limit = check_tolerance(faces.tolerance if tolerance is None else tolerance)
    known = faces.store.count(gallery)  # before detection: an unknown gallery must cost nothing
    found = faces.finder.find(photo, model)
    encodings = faces.encoder.encode(found.chips)
    nearest = faces.store.nearest(gallery, encodings, candidates, encoder=str(faces.encoder.name))
    matches = (_match(faces, face, near, limit) for face, near in zip(found.faces, nearest, strict=True))
    return Identification(found, tuple(matches), limit, known)


def compare(
    faces: Faces, one: bytes, other: bytes, *, tolerance: float | None = None, model: DetectorModel = "hog"
) -> Comparison:
    """Measure the distance between the largest faces of two photo files.

    Raises NoFace, which says which photo has none, and what the finder and the encoder raise.
    """
    limit = check_tolerance(faces.tolerance if tolerance is None else tolerance)
    found = faces.finder.find(one, model), faces.finder.find(other, model)
    for which, each in zip(("first", "second"), found, strict=True):
        if not each.faces:
            raise no_face(f"the {which} photo", each)
    chips = np.stack([each.faces[0].chip for each in found])
    vectors = faces.encoder.encode(chips).astype(np.float64)
    return Comparison(found, float(np.linalg.norm(vectors[0] - vectors[1])), limit)


def no_face(which: str, found: Detection) -> NoFace:
    """Return the error for a photo without a face; it names the passes that were tried."""
    return NoFace(
        f"{which} ({found.width} x {found.height} pixels) shows no face; tried: {', '.join(found.tried)}.",
        hint="Send a photo in which the face is upright, lit, and at least 40 pixels wide.",
    )


def check_tolerance(tolerance: float) -> float:
    """Return the tolerance. Raises InvalidParameter unless 0 < tolerance <= 2."""
    if not 0 < tolerance <= 2:
        raise InvalidParameter(f"tolerance is {tolerance:g}; it must be above 0 and at most 2.")
    return tolerance


def _match(faces: Faces, face: FoundFace, nearest: Sequence[Candidate], tolerance: float) -> Match:
    reasons = tuple(too_poor(face.quality, side=faces.min_side, sharpness=faces.min_sharpness))
    is_known = bool(nearest) and nearest[0].distance <= tolerance and not reasons
    return Match(face, nearest[0].name if is_known else None, tuple(nearest), reasons)
