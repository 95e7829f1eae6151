"""The settings of faces: one frozen class, read from the environment in the entry points only."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.contract.image import ImageLimits
from serving.faces.pool import FacePool, default_processes
from serving.faces.recognition import TOLERANCE
from serving.faces.worker import WorkerSettings


class FaceSettings(BaseSettings):
    """Everything of faces that can be set, as `SIGHTLINE_FACES_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="SIGHTLINE_FACES_", frozen=True, extra="forbid")

    url: str = Field("sqlite:///faces.db", description="Where galleries are kept: sqlite:///FILE or postgresql://...")
    key: str = Field("", repr=False, description="32 bytes in base64: encrypts a SQLite gallery at rest.")
    socket: str = Field("", description="Unix socket of the face service; empty: no faces.")
    encoder: Literal["served", "dlib"] = Field(
        "served", description="served: the model face-encoder of the model server, dlib where there is none; or dlib."
    )
    tolerance: float = Field(TOLERANCE, gt=0, le=2, description="Distance up to which two faces are one person.")
    processes: int = Field(default_factory=default_processes, ge=1, description="Face processes.")
    waiting: int = Field(16, ge=0, description="Photos that may wait for a face process before 503 is answered.")
    timeout_seconds: float = Field(30.0, gt=0, description="From a photo's arrival to its faces, seconds.")
    max_side: int = Field(800, ge=100, description="Long side to which a photo is brought before faces are looked for.")
    preload: bool = Field(False, description="Load dlib's models at start, not at the first photo.")

    def pool(self, limits: ImageLimits) -> FacePool:
        """The face processes that these settings ask for."""
        return FacePool(
            WorkerSettings(limits, self.max_side, self.preload),
            processes=self.processes,
            waiting=self.waiting,
            timeout_seconds=self.timeout_seconds,
        )
