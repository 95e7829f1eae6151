"""The query parameters of /faces."""

from collections.abc import Mapping, Sequence
from typing import get_args

from serving.contract.errors import InvalidParameter
from serving.faces.enrolment import Standards
from serving.faces.face import Model
from serving.faces.gallery import DEFAULT_GALLERY, check_gallery
from serving.faces.recognition import check_tolerance

GALLERY_PARAMETERS = ("gallery",)
COMPARE_PARAMETERS = ("tolerance", "model")
IDENTIFY_PARAMETERS = ("gallery", "tolerance", "top", "model", "annotate")
ENROL_PARAMETERS = ("gallery", "expires", "replace", "keep_photos", "allow", "model")
FLAGS = {"true": True, "1": True, "false": False, "0": False}
MODELS: tuple[Model, ...] = get_args(Model)


def require_known(args: Mapping[str, str], known: Sequence[str]) -> Mapping[str, str]:
    """The parameters. Raises InvalidParameter for one that is misspelt, rather than ignore it."""
    for name in args:
        if name not in known:
            raise InvalidParameter(
                f"unknown parameter {name!r}",
                hint=f"Known are {', '.join(known)}." if known else "There are none here.",
            )
    return args


def read_gallery(args: Mapping[str, str]) -> str:
    """Which gallery. Raises InvalidName."""
    return check_gallery(args.get("gallery", DEFAULT_GALLERY))


def read_tolerance(args: Mapping[str, str]) -> float | None:
    """The distance up to which two faces are one person; None where the request leaves it to the settings."""
    if (text := args.get("tolerance")) is None:
        return None
    try:
        return check_tolerance(float(text))
    except ValueError as exc:
        raise InvalidParameter(f"tolerance is {text!r}; a number such as 0.6 is wanted") from exc


def read_model(args: Mapping[str, str]) -> Model:
    """Which detector."""
    wanted = args.get("model", MODELS[0])
    for model in MODELS:
        if model == wanted:
            return model
    raise InvalidParameter(f"model is {wanted!r}; it must be {' or '.join(MODELS)}")


def read_standards(args: Mapping[str, str]) -> Standards:
    """The coach's standards; `allow` names reasons to waive, with commas."""
    codes = (code.strip() for code in args.get("allow", "").split(","))
    return Standards(allowed=frozenset(code for code in codes if code))


def read_flag(args: Mapping[str, str], name: str) -> bool:
    """A parameter that is true or false; false where it is absent."""
    text = args.get(name, "false").lower()
    if text not in FLAGS:
        raise InvalidParameter(f"{name} is {text!r}; it must be true or false")
    return FLAGS[text]
