"""Answers about faces as JSON. Encodings never leave the service: they identify a person."""

from collections.abc import Sequence

from serving.contract.errors import BadImage
from serving.faces.enrolment import Verdict
from serving.faces.face import Box, Detection, FoundFace, Quality, Reason
from serving.faces.galleries.gallery import Candidate, GalleryInfo, Person
from serving.faces.recognition import Comparison, Identification, Match
from serving.gateway.http import schemas
from serving.gateway.http.errors import error_fields


def identified_body(identified: Identification, gallery: str, request_id: str) -> schemas.Identified:
    """Build the answer of POST /faces/identify: one entry per face, the largest first."""
    found = identified.found
    return {
        "faces": [_match(match) for match in identified.matches],
        "gallery": gallery,
        "tolerance": identified.tolerance,
        "known": identified.known,
        "width": found.width,
        "height": found.height,
        "tried": list(found.tried),
        "request_id": request_id,
    }


def compared_body(compared: Comparison, request_id: str) -> schemas.Compared:
    """Build the answer of POST /faces/compare."""
    one, other = compared.found
    return {
        "same": compared.is_same,
        "distance": compared.distance,
        "tolerance": compared.tolerance,
        "a": _compared_photo(one),
        "b": _compared_photo(other),
        "request_id": request_id,
    }


def photo_body(name: str, outcome: Verdict | BadImage) -> schemas.Photo | schemas.RefusedPhoto:
    """Build the entry of one photo in the answer of an enrolment. stored is false for a photo enrolled before."""
    if isinstance(outcome, BadImage):
        return {"name": name, "accepted": False, "error": error_fields(outcome)}
    return {
        "name": name,
        "accepted": outcome.is_accepted,
        "stored": outcome.stored,
        "reasons": [_reason(reason) for reason in outcome.reasons],
        "faces": [_seen(face) for face in outcome.found.faces],
        "tried": list(outcome.found.tried),
    }


def people_body(gallery: str, people: Sequence[Person]) -> schemas.People:
    """Build the answer of GET /faces/people. known: the encodings of all people."""
    known = sum(person.encodings for person in people)
    return {"gallery": gallery, "people": [_person(person) for person in people], "known": known}


def person_body(gallery: str, person: Person) -> schemas.NamedPerson:
    """Build the answer of GET /faces/people/{name}."""
    return {"gallery": gallery, **_person(person)}


def galleries_body(galleries: Sequence[GalleryInfo]) -> schemas.Galleries:
    """Build the answer of GET /faces/galleries."""
    return {
        "galleries": [
            {"name": row.name, "encoder": row.encoder, "people": row.people, "encodings": row.encodings}
            for row in galleries
        ]
    }


def _person(person: Person) -> schemas.Person:
    return {"name": person.name, "encodings": person.encodings, "expires": person.expires or None}


def _match(match: Match) -> schemas.Face:
    return {
        "box": _box(match.face.box),
        "name": match.name,
        "distance": match.distance,
        "candidates": [_candidate(candidate) for candidate in match.candidates],
        "confidence": match.face.confidence,
        "quality": _quality(match.face.quality),
        "reasons": [_reason(reason) for reason in match.reasons],
    }


def _compared_photo(found: Detection) -> schemas.ComparedPhoto:
    """faces: how many the photo shows; box: the largest, which was compared."""
    return {
        "box": _box(found.faces[0].box),
        "faces": len(found.faces),
        "width": found.width,
        "height": found.height,
        "tried": list(found.tried),
    }


def _seen(face: FoundFace) -> schemas.SeenFace:
    return {"box": _box(face.box), "confidence": face.confidence, "quality": _quality(face.quality)}


def _quality(quality: Quality) -> schemas.FaceQuality:
    return {
        "side": quality.side,
        "sharpness": quality.sharpness,
        "brightness": quality.brightness,
        "turn": quality.turn,
    }


def _reason(reason: Reason) -> schemas.Reason:
    return {"code": reason.code, "text": reason.text, "measured": reason.measured, "limit": reason.limit}


def _candidate(candidate: Candidate) -> schemas.Candidate:
    return {"name": candidate.name, "distance": candidate.distance}


def _box(box: Box) -> schemas.Box:
    return {"top": box.top, "right": box.right, "bottom": box.bottom, "left": box.left}
