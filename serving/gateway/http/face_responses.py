"""Answers about faces: the one place where they become JSON. Encodings never leave: they identify a person."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from serving.faces.enrolment import Verdict
from serving.faces.face import Box, Detection, FoundFace
from serving.faces.galleries.gallery import Candidate, Person
from serving.faces.recognition import Comparison, Identification, Match


def identified_body(identified: Identification, gallery: str, request_id: str) -> dict[str, Any]:
    """The answer of POST /faces/identify: an entry for each face, the largest first."""
    return {
        "faces": [_match(match) for match in identified.matches],
        "gallery": gallery,
        "tolerance": identified.tolerance,
        "known": identified.known,
        **_picture(identified.found),
        "request_id": request_id,
    }


def compared_body(compared: Comparison, request_id: str) -> dict[str, Any]:
    """The answer of POST /faces/compare. faces: how many each picture shows; the largest was compared."""
    one, other = compared.found
    return {
        "same": compared.is_same,
        "distance": compared.distance,
        "tolerance": compared.tolerance,
        "a": {"box": _box(one.faces[0].box), "faces": len(one.faces), **_picture(one)},
        "b": {"box": _box(other.faces[0].box), "faces": len(other.faces), **_picture(other)},
        "request_id": request_id,
    }


def verdict_body(verdict: Verdict) -> dict[str, Any]:
    """What became of one photo. stored is false for a photo that was enrolled before."""
    return {
        "accepted": verdict.is_accepted,
        "stored": verdict.stored,
        "reasons": [asdict(reason) for reason in verdict.reasons],
        "faces": [_seen(face) for face in verdict.found.faces],
        "tried": verdict.found.tried,
    }


def people_body(gallery: str, people: Sequence[Person]) -> dict[str, Any]:
    """The answer of GET /faces/people. expires is null for a person who stays."""
    rows = [{"name": each.name, "encodings": each.encodings, "expires": each.expires or None} for each in people]
    return {"gallery": gallery, "people": rows, "known": sum(each.encodings for each in people)}


def _match(match: Match) -> dict[str, Any]:
    return {
        "box": _box(match.face.box),
        "name": match.name,
        "distance": match.distance,
        "candidates": [_candidate(candidate) for candidate in match.candidates],
        "confidence": match.face.confidence,
    }


def _seen(face: FoundFace) -> dict[str, Any]:
    return {"box": _box(face.box), "confidence": face.confidence, "quality": asdict(face.quality)}


def _picture(found: Detection) -> dict[str, Any]:
    return {"width": found.width, "height": found.height, "tried": found.tried}


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {"name": candidate.name, "distance": candidate.distance}


def _box(box: Box) -> dict[str, int]:
    return {"top": box.top, "right": box.right, "bottom": box.bottom, "left": box.left}
