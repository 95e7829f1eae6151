"""The settings of faces: one frozen class. Only entry points read it from the environment.

In the configuration file of `sightline serve` they are the table `[faces]`, by the names of the fields.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.contract.errors import UsageError
from serving.contract.machine import usable_cpus

PREFIX = "SIGHTLINE_FACES_"

# face_recognition's default: two photos of one person are nearer than this, of two persons farther. In a large gallery
# somebody is near by chance: lower it (`sightline faces advise`).
TOLERANCE = 0.6
# Smaller and more blurred faces come too near to strangers to be named: measured, see docs/faces.md.
MIN_SIDE = 24  # pixels
MIN_SHARPNESS = 0.05


def _half_of_the_cores() -> int:
    """At least one; the other half predicts."""
    return max(1, usable_cpus() // 2)


class FaceSettings(BaseModel):
    """Everything about faces that can be set: as `SIGHTLINE_FACES_<NAME>`, or in the table `[faces]` of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field("sqlite:///faces.db", description="Store of the galleries: sqlite:///FILE or postgresql://...")
    key: str = Field("", repr=False, description="32 bytes in base64; encrypts a SQLite gallery at rest.")
    socket: str = Field("", description="Unix socket of the face service; empty: no faces.")
    encoder: Literal["served", "dlib"] = Field(
        "served", description="served: the model face-encoder on the model server, else dlib; dlib: always dlib."
    )
    tolerance: float = Field(TOLERANCE, gt=0, le=2, description="Largest distance of two faces of one person.")
    min_side: int = Field(MIN_SIDE, ge=0, description="Longer side of the smallest face that is named, pixels.")
    min_sharpness: float = Field(
        MIN_SHARPNESS, ge=0, description="Sharpness of the most blurred face that is named; see `quality`."
    )
    processes: int = Field(default_factory=_half_of_the_cores, ge=1, description="Number of face processes.")
    waiting: int = Field(16, ge=0, description="Photos that may wait for a face process; one more is answered 503.")
    timeout_seconds: float = Field(30.0, gt=0, description="Deadline of one photo, from arrival to answer, seconds.")
    max_side: int = Field(800, ge=100, description="Long side to which a photo is shrunk before detection, pixels.")
    preload: bool = Field(False, description="Load dlib's models at start instead of at the first photo.")

    def environ(self) -> dict[str, str]:
        """Return the settings as the environment of a process that reads them again."""
        return {face_variable(name): str(value) for name, value in self.model_dump().items()}


def face_variable(name: str) -> str:
    """Return the environment variable of a setting: `max_side` -> `SIGHTLINE_FACES_MAX_SIDE`."""
    return PREFIX + name.upper()


def read_face_settings(
    environ: Mapping[str, str], table: Mapping[str, Any] | None = None, *, source: str = "[faces]"
) -> FaceSettings:
    """Read the settings: the environment goes before `table`, `table` before the defaults.

    table: `[faces]` of the configuration file; source: its name in error texts.
    Raises UsageError for a value that is not allowed and for a name in `table` that does not exist.
    """
    given = dict(table or {})
    sources = dict.fromkeys(given, source)
    for name in FaceSettings.model_fields:
        if (variable := face_variable(name)) in environ:
            given[name] = environ[variable]
            sources[name] = variable
    try:
        return FaceSettings.model_validate(given)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        name = str(first["loc"][0])
        if name not in FaceSettings.model_fields:
            raise UsageError(
                f"{source} sets {name}, which does not exist.",
                hint=f"Settings: {', '.join(FaceSettings.model_fields)}.",
            ) from exc
        value = first["input"] if FaceSettings.model_fields[name].repr else "***"
        setting = sources[name] if sources[name] == face_variable(name) else f"{source}.{name}"
        raise UsageError(f"{setting} is {value!r}: {first['msg']}.") from exc
