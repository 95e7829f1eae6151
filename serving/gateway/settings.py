"""The gateway's settings: one frozen class, read from the environment in the entry points only."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.contract.image import ImageLimits


class Settings(BaseSettings):
    """Everything that can be set, as `SIGHTLINE_<NAME>`. Lists are written with commas."""

    model_config = SettingsConfigDict(env_prefix="SIGHTLINE_", frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=1, le=65535, description="Port to listen on.")
    workers: int = Field(2, ge=1, description="Gateway processes.")
    threads: int = Field(16, ge=1, description="Requests that one process handles at a time.")
    backend: str = Field(
        "127.0.0.1:8500", description="host:port of the model server's gRPC; several, with commas, are used in turn."
    )
    models: str = Field(
        "", description="Names to list, with commas, where the model server cannot list its own (TensorFlow Serving)."
    )
    backend_timeout_seconds: float = Field(30.0, gt=0, description="Deadline of one call of the model server, seconds.")
    max_image_bytes: int = Field(20_000_000, ge=1, description="Largest picture, bytes.")
    max_image_pixels: int = Field(50_000_000, ge=1, description="Largest picture, width x height.")
    max_images: int = Field(128, ge=1, description="Most pictures in one request.")
    max_request_bytes: int = Field(100_000_000, ge=1, description="Largest request, bytes.")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")

    @property
    def image_limits(self) -> ImageLimits:
        """The limits that `decode_image` wants."""
        return ImageLimits(self.max_image_bytes, self.max_image_pixels)

    @property
    def backends(self) -> tuple[str, ...]:
        """The model servers' addresses."""
        return _split(self.backend)

    @property
    def listed_models(self) -> tuple[str, ...]:
        """The names in `models`."""
        return _split(self.models)

    def environ(self) -> dict[str, str]:
        """The settings as the environment of a process that reads them again."""
        return {f"SIGHTLINE_{name.upper()}": str(value) for name, value in self.model_dump().items()}


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
