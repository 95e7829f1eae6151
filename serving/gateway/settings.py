"""The gateway's settings: one frozen class, and how it is read. Only entry points read it from the environment."""

import difflib
import ipaddress
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from serving.backend.targets import check_target
from serving.contract.errors import UsageError
from serving.contract.image_limits import ImageLimits
from serving.contract.machine import usable_cpus
from serving.faces.settings import PREFIX as FACES_PREFIX
from serving.faces.settings import FaceSettings
from serving.gateway.access.keys import read_key_file, read_keys

PREFIX = "SIGHTLINE_"
CONFIG = "SIGHTLINE_CONFIG"  # a TOML file
NOT_OURS = {CONFIG, "SIGHTLINE_DATA", "SIGHTLINE_URL", "SIGHTLINE_API_KEY"}  # the export's and the client's
SECRET = "***"
FEWEST_WORKERS, MOST_WORKERS = 2, 8  # of those that nobody asked for, where there is more than one CPU
TLS_SETTINGS = ("backend_tls_ca", "backend_tls_certificate", "backend_tls_key", "backend_tls_server_name")


def workers_for(cpus: int) -> int:
    """How many gateway processes suit a machine that runs the models, too.

    Measured: on one CPU one answers 1.2 to 1.5 times as many requests as two do, on two CPUs two 1.4 times as many as
    one.
    """
    return 1 if cpus == 1 else min(MOST_WORKERS, max(FEWEST_WORKERS, cpus // 2))


class Settings(BaseModel):
    """Everything that can be set: as a flag, as `SIGHTLINE_<NAME>`, or in a TOML file. Lists: with commas."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=1, le=65535, description="Port to listen on.")
    workers: int = Field(0, ge=0, description="Gateway processes; 0: one on one CPU, else half the CPUs, 2 to 8.")
    worker_class: Literal["gevent", "gthread"] = Field(
        "gevent", description="How a gateway process runs requests side by side: gevent or gthread."
    )
    threads: int = Field(
        32, ge=1, description="Requests that one process handles at a time; one more is answered 503 at once."
    )
    max_in_flight: int = Field(
        0, ge=0, description="Requests that all processes together handle at a time; 0: no bound but each one's own."
    )
    max_requests: int = Field(
        0,
        ge=0,
        description="Requests after which a process is replaced, and up to a tenth more; 0: never.",
    )
    drain_seconds: float = Field(
        0.0, ge=0, description="How long /readyz says 503 before the service stops when told to, seconds."
    )
    stop_seconds: float = Field(
        4.0, gt=0, description="Longest wait for requests in flight when told to stop, seconds."
    )
    backend: str = Field(
        "127.0.0.1:8500",
        description="host:port of the model server's gRPC; several, with commas, and all addresses of each take turns.",
    )
    backend_tls: bool = Field(False, description="Speak TLS with the model server.")
    backend_tls_ca: str = Field(
        "", description="PEM file of who may sign the model server's certificate; empty: public authorities."
    )
    backend_tls_certificate: str = Field(
        "", description="PEM file of the certificate that the gateway shows the model server."
    )
    backend_tls_key: str = Field("", description="PEM file of that certificate's key.")
    backend_tls_server_name: str = Field(
        "", description="Name in the model server's certificate; empty: the host in SIGHTLINE_BACKEND."
    )
    backend_socket: str = Field(
        "", description="Unix socket on which the embedded model server answers Predict, faster than over gRPC."
    )
    models: str = Field(
        "", description="Names to list, with commas, where the model server cannot list its own (TensorFlow Serving)."
    )
    backend_timeout_seconds: float = Field(30.0, gt=0, description="Deadline of one call of the model server, seconds.")
    merge: bool = Field(True, description="Let requests of one worker share calls of the model server.")
    merge_pictures: int = Field(32, ge=1, description="Most pictures that requests share a call with; photos: fewer.")
    model_threads: int = Field(
        0, ge=0, description="Threads of one operation in the embedded model server; 0: half the CPUs."
    )
    max_image_bytes: int = Field(20_000_000, ge=1, description="Largest picture, bytes.")
    max_image_pixels: int = Field(50_000_000, ge=1, description="Largest picture, width x height.")
    max_images: int = Field(128, ge=1, description="Most pictures in one request.")
    upload_seconds: float = Field(
        60.0, gt=0, description="Longest wait for a request to arrive, seconds; with gevent alone."
    )
    max_request_bytes: int = Field(100_000_000, ge=1, description="Largest request, bytes.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="DEBUG, INFO, WARNING or ERROR."
    )
    log_format: Literal["json", "text"] = Field("json", description="json: an object a line; text: for people.")

    api_keys: str = Field(
        "", repr=False, description="NAME:SHA256:SCOPE+SCOPE, several with commas; empty: everybody may ask."
    )
    api_keys_file: str = Field("", description="File with such an entry a line; read again on SIGHUP.")
    insecure: bool = Field(False, description="Listen on an address that others reach although there are no API keys.")
    rate_limit: str = Field(
        "", description="Most requests of an API key, or of an address where there are no keys: 100/minute; empty: any."
    )
    rate_limit_storage: str = Field(
        "memory://",
        repr=False,
        description="Where they are counted: memory:// (in each process) or redis://HOST:PORT (extra redis).",
    )
    trusted_proxies: int = Field(
        0, ge=0, description="Proxies in front that set X-Forwarded-For; the address before the first of them counts."
    )
    cors_origins: str = Field("", description="Origins whose pages may read answers, with commas; *: all.")

    @field_validator("api_keys")
    @classmethod
    def _keys_can_be_read(cls, value: str) -> str:
        read_keys(_split(value))
        return value

    @field_validator("rate_limit")
    @classmethod
    def _rates_can_be_read(cls, value: str) -> str:
        if value:
            from serving.gateway.access.rates import check_rates  # what most do without takes a while to load

            check_rates(value)
        return value

    @field_validator("backend")
    @classmethod
    def _backends_can_be_read(cls, value: str) -> str:
        for target in _split(value):
            check_target(target)
        if not _split(value):
            raise ValueError("no model server is named")
        return value

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        files = [name for name in TLS_SETTINGS if getattr(self, name)]
        if files and not self.backend_tls:
            raise ValueError(f"{files[0]} is given without backend_tls")
        if bool(self.backend_tls_certificate) != bool(self.backend_tls_key):
            raise ValueError("backend_tls_certificate and backend_tls_key belong together; one of them is given")
        return self

    @model_validator(mode="after")
    def _socket_is_of_one_backend(self) -> Self:
        if self.backend_socket and len(self.backends) > 1:
            raise ValueError("backend_socket is of one model server; backend names several")
        return self

    @property
    def processes(self) -> int:
        """The gateway processes to start: `workers`, or as many as suit this machine."""
        return self.workers or workers_for(usable_cpus())

    @property
    def api_key_entries(self) -> tuple[str, ...]:
        """The entries of `api_keys`."""
        return _split(self.api_keys)

    @property
    def has_keys(self) -> bool:
        """Requests need an API key."""
        return bool(self.api_keys or self.api_keys_file)

    @property
    def key_file(self) -> Path | None:
        """The file of keys; None without one."""
        return Path(self.api_keys_file) if self.api_keys_file else None

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """The origins in `cors_origins`."""
        return _split(self.cors_origins)

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
        return {PREFIX + name.upper(): str(value) for name, value in self.model_dump().items()}


@dataclass(frozen=True, slots=True)
class Given:
    """Settings, and for each name where its value came from: a flag, a variable, a file, or `default`."""

    settings: Settings
    sources: Mapping[str, str]


def read_settings(environ: Mapping[str, str], flags: Mapping[str, Any] | None = None) -> Given:
    """Flags before the environment before the TOML file before the defaults.

    environ: SIGHTLINE_<NAME>; SIGHTLINE_CONFIG names the file, which `flags["config"]` outdoes.
    flags: values by the names of Settings; those that are None were not given.
    Raises UsageError for a setting that does not exist, for a value that is not allowed, and for an unreadable file.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    path = given.pop("config", None) or environ.get(CONFIG)
    layers = [
        *([_from_file(Path(path))] if path else []),
        _from_environ(environ),
        {name: (value, f"--{name.replace('_', '-')}") for name, value in given.items()},
    ]
    merged = {name: entry for layer in layers for name, entry in layer.items()}
    sources = {name: source for name, (_, source) in merged.items()}
    try:
        settings = Settings.model_validate({name: value for name, (value, _) in merged.items()})
    except ValidationError as exc:
        raise _refused(exc, sources) from exc
    return Given(settings, {name: sources.get(name, "default") for name in Settings.model_fields})


def require_safe(settings: Settings) -> None:
    """Raise UsageError where anybody might use the service and nobody said that this is meant.

    Also where the file of keys cannot be read.
    """
    if settings.key_file:
        read_key_file(settings.key_file)
    if settings.has_keys or settings.insecure or _is_loopback(settings.host):
        return
    raise UsageError(
        f"the gateway would listen on {settings.host} and answer everybody: there are no API keys",
        hint="Set SIGHTLINE_API_KEYS or SIGHTLINE_API_KEYS_FILE (`python -m serving.gateway.access.keys NAME` makes a "
        "key), "
        "or say --insecure.",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def shown(given: Given) -> str:
    """The settings as a TOML file that says where each value came from. Secrets are hidden."""
    lines = []
    for name, field in Settings.model_fields.items():
        value = getattr(given.settings, name)
        text = _toml(SECRET) if not field.repr and value != field.default else _toml(value)
        lines += [f"# {field.description} [{given.sources[name]}]", f"{name} = {text}"]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    return json.dumps(value)  # TOML writes these types as JSON does


def _from_environ(environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    known = {PREFIX + name.upper(): name for name in Settings.model_fields}
    others = NOT_OURS | {FACES_PREFIX + name.upper() for name in FaceSettings.model_fields}
    found: dict[str, tuple[Any, str]] = {}
    for variable, value in environ.items():
        if variable in known:
            found[known[variable]] = (value, variable)
        elif variable.startswith(PREFIX) and variable not in others:
            raise _unknown(variable, "the environment", known.keys() | others)
    return found


def _from_file(path: Path) -> dict[str, tuple[Any, str]]:
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise UsageError(
            f"the settings file {path} cannot be read: {exc.strerror}", hint="--config, SIGHTLINE_CONFIG"
        ) from exc
    except ValueError as exc:  # not TOML, or not UTF-8
        raise UsageError(f"the settings file {path} is not TOML: {exc}") from exc
    for name in document:
        if name not in Settings.model_fields:
            raise _unknown(name, str(path), Settings.model_fields)
    return {name: (value, str(path)) for name, value in document.items()}


def _unknown(name: str, where: str, known: Iterable[str]) -> UsageError:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    meant = f"Did you mean {near[0]}? " if near else ""
    return UsageError(
        f"{where} sets {name}, which does not exist", hint=f"{meant}`sightline serve --show-settings` lists what does."
    )


def _refused(exc: ValidationError, sources: Mapping[str, str]) -> UsageError:
    first = exc.errors(include_url=False)[0]
    if not first["loc"]:  # several do not go together; the input is all of them, secrets too
        return UsageError(f"the settings do not go together: {first['msg']}")
    name = str(first["loc"][0])
    shown_value = SECRET if name in Settings.model_fields and not Settings.model_fields[name].repr else first["input"]
    return UsageError(f"{name} is {shown_value!r} ({sources.get(name, 'given')}): {first['msg']}")


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
