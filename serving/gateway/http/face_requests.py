"""The query parameters of /faces."""

from collections.abc import Mapping
from typing import get_args

from serving.contract.errors import InvalidParameter
from serving.faces.enrolment import Standards
from serving.faces.face import DetectorModel
from serving.faces.galleries.gallery import DEFAULT_GALLERY, check_gallery
from serving.faces.recognition import check_tolerance
from serving.gateway.http.openapi import Parameter

MODELS: tuple[DetectorModel, ...] = get_args(DetectorModel)
FLAG = {"type": "boolean", "default": False}

_GALLERY = Parameter("gallery", {"type": "string", "default": DEFAULT_GALLERY}, "The gallery.")
_TOLERANCE = Parameter("tolerance", {"type": "number"}, "Largest distance of two faces of one person.")
_MODEL = Parameter("model", {"enum": list(MODELS), "default": MODELS[0]}, "The face detector.")
GALLERY_PARAMETERS = (_GALLERY,)
COMPARE_PARAMETERS = (_TOLERANCE, _MODEL)
IDENTIFY_PARAMETERS = (
    _GALLERY,
    _TOLERANCE,
    Parameter("top", {"type": "integer", "minimum": 1}, "Candidates per face."),
    _MODEL,
    Parameter("annotate", {"enum": ["png"]}, "Answer with the image and its faces drawn in."),
)
ENROL_PARAMETERS = (
    _GALLERY,
    Parameter("expires", {"type": "string"}, "Day (ISO 8601) on which the person is forgotten; empty: never."),
    Parameter("replace", FLAG, "Replace what is known about the person."),
    Parameter("keep_photos", FLAG, "Store the photos, too."),
    Parameter("allow", {"type": "string"}, "Comma-separated reasons to waive."),
    _MODEL,
)
FLAGS = {"true": True, "1": True, "false": False, "0": False}


def read_gallery(args: Mapping[str, str]) -> str:
    """Read the gallery. Raises InvalidName."""
    return check_gallery(args.get("gallery", DEFAULT_GALLERY))


def read_tolerance(args: Mapping[str, str]) -> float | None:
    """Read the largest distance of two faces of one person; None: the settings decide. Raises InvalidParameter."""
    if (text := args.get("tolerance")) is None:
        return None
    try:
        return check_tolerance(float(text))
    except ValueError as exc:
        raise InvalidParameter(f"tolerance is {text!r}; it must be a number such as 0.6.") from exc


def read_model(args: Mapping[str, str]) -> DetectorModel:
    """The face detector."""
    wanted = args.get("model", MODELS[0])
    for model in MODELS:
        if model == wanted:
            return model
    raise InvalidParameter(f"model is {wanted!r}; it must be {' or '.join(MODELS)}.")


def read_standards(args: Mapping[str, str]) -> Standards:
    """Read the standards for photos; `allow` names reasons to waive, comma-separated."""
    codes = (code.strip() for code in args.get("allow", "").split(","))
    return Standards(allowed=frozenset(code for code in codes if code))


def read_flag(args: Mapping[str, str], name: str) -> bool:
    """Read a boolean parameter; false where it is absent. Raises InvalidParameter."""
    text = args.get(name, "false").lower()
    if text not in FLAGS:
        raise InvalidParameter(f"{name} is {text!r}; it must be true or false.")
    return FLAGS[text]
