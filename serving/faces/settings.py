"""The settings of faces: one frozen class, read from the environment in the entry points only."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.contract.errors import UsageError
from serving.contract.machine import usable_cpus

PREFIX = "SIGHTLINE_FACES_"

# Two photos of one person are nearer than this, of two persons farther: face_recognition's default. In a large
# gallery somebody is near by chance: lower it (`sightline faces advise`).
TOLERANCE = 0.6


def _half_of_the_cores() -> int:
    """At least one: the other half predicts."""
    return max(1, usable_cpus() // 2)


class FaceSettings(BaseModel):
    """Everything of faces that can be set, as `SIGHTLINE_FACES_<NAME>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field("sqlite:///faces.db", description="Where galleries are kept: sqlite:///FILE or postgresql://...")
    key: str = Field("", repr=False, description="32 bytes in base64: encrypts a SQLite gallery at rest.")
    socket: str = Field("", description="Unix socket of the face service; empty: no faces.")
    encoder: Literal["served", "dlib"] = Field(
        "served", description="served: the model face-encoder of the model server, dlib where there is none; or dlib."
    )
    tolerance: float = Field(TOLERANCE, gt=0, le=2, description="Distance up to which two faces are one person.")
    processes: int = Field(default_factory=_half_of_the_cores, ge=1, description="Face processes.")
    waiting: int = Field(16, ge=0, description="Photos that may wait for a face process before 503 is answered.")
    timeout_seconds: float = Field(30.0, gt=0, description="From a photo's arrival to its faces, seconds.")
    max_side: int = Field(800, ge=100, description="Long side to which a photo is brought before faces are looked for.")
    preload: bool = Field(False, description="Load dlib's models at start, not at the first photo.")


def read_face_settings(environ: Mapping[str, str]) -> FaceSettings:
    """The settings that the environment gives. Raises UsageError."""
    variables = {name: PREFIX + name.upper() for name in FaceSettings.model_fields}
    try:
        return FaceSettings.model_validate(
            {name: environ[variable] for name, variable in variables.items() if variable in environ}
        )
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        name = str(first["loc"][0])
        given = first["input"] if FaceSettings.model_fields[name].repr else "***"
        raise UsageError(f"{variables[name]} is {given!r}: {first['msg']}") from exc
