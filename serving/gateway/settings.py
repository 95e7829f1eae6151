"""The settings of `sightline serve`: flags, environment, TOML file, defaults. Only entry points read them."""

import difflib
import ipaddress
import json
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from serving.backend.targets import KEEPALIVE_SECONDS, check_target
from serving.contract.errors import UsageError
from serving.contract.image_limits import ImageLimits
from serving.contract.json_body import JsonLimits
from serving.contract.machine import usable_cpus
from serving.faces.settings import FaceSettings, face_variable, read_face_settings
from serving.gateway.access.keys import read_key_file, read_keys

PREFIX = "SIGHTLINE_"
CONFIG = "SIGHTLINE_CONFIG"  # a TOML file
ARBITER_BEAT = "SIGHTLINE_ARBITER_BEAT"  # a file that gunicorn's arbiter touches, set by `sightline serve`
NOT_OURS = {
    CONFIG,
    ARBITER_BEAT,
    "SIGHTLINE_DATA",
    "SIGHTLINE_URL",
    "SIGHTLINE_API_KEY",
}  # of the export and the client
RENAMED = {"models": "model_names"}  # old names, which still work: `--models` is a folder
FACES = "faces"  # the table of the TOML file
FACE_FLAGS = "faces_"  # the flag `faces_encoder` is the setting `encoder` of FaceSettings
LIMITS = ImageLimits()
JSON_LIMITS = JsonLimits()
FEWEST_THREADS = 2  # that decode, so that one photo does not hold up all others
SECRET = "***"
FEWEST_WORKERS, MOST_WORKERS = 2, 8  # by default, where there is more than one CPU
TLS_SETTINGS = ("backend_tls_ca", "backend_tls_certificate", "backend_tls_key", "backend_tls_server_name")


def workers_for(cpus: int) -> int:
    """Return the number of gateway processes for a machine that also runs the models.

    Measured: on one CPU, one process answers 1.2 to 1.5 times as many requests as two; on two CPUs, two answer 1.4
    times as many as one.
    """
    return 1 if cpus == 1 else min(MOST_WORKERS, max(FEWEST_WORKERS, cpus // 2))


class Settings(BaseModel):
    """The gateway's settings: a flag, `SIGHTLINE_<NAME>`, or a line of the TOML file. Lists are comma-separated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=1, le=65535, description="Port to listen on.")
    workers: int = Field(0, ge=0, description="Gateway processes; 0: one on one CPU, else half the CPUs, 2 to 8.")
    worker_class: Literal["gevent", "gthread"] = Field(
        "gevent", description="Concurrency of a gateway process: gevent or gthread."
    )
    threads: int = Field(
        32, ge=1, description="Most requests in flight in one process; one more is answered 503 at once."
    )
    max_in_flight: int = Field(
        0, ge=0, description="Most requests in flight in all processes together; 0: each process's own limit only."
    )
    max_connections: int = Field(
        1000,
        ge=2,
        description="Most connections of one process; past it, those idle for longest are dropped. With gevent only.",
    )
    connections_per_address: int = Field(
        0,
        ge=0,
        description="Most connections of one address in one process; 0: half of them all, no limit behind trusted "
        "proxies. With gevent only.",
    )
    max_requests: int = Field(
        0,
        ge=0,
        description="Requests after which a process is replaced, plus up to a tenth; 0: never.",
    )
    ready_when: Literal["all", "any"] = Field(
        "all",
        description="/readyz answers 200 when all models that were there at the start are available or have failed; "
        "any: when one is available.",
    )
    drain_seconds: float = Field(0.0, ge=0, description="Time for which /readyz answers 503 before a stop, seconds.")
    stop_seconds: float = Field(4.0, gt=0, description="Longest wait for requests in flight at a stop, seconds.")
    backend: str = Field(
        "127.0.0.1:8500",
        description="host:port of the model server's gRPC. Several, comma-separated, share the load.",
    )
    backend_tls: bool = Field(False, description="Use TLS for the model server.")
    backend_tls_ca: str = Field(
        "", description="PEM file of the CA of the model server's certificate; empty: public CAs."
    )
    backend_tls_certificate: str = Field("", description="PEM file of the gateway's client certificate.")
    backend_tls_key: str = Field("", description="PEM file of the client certificate's key.")
    backend_tls_server_name: str = Field(
        "", description="Name in the model server's certificate; empty: the host in SIGHTLINE_BACKEND."
    )
    backend_socket: str = Field(
        "", description="Unix socket of the embedded model server for Predict; faster than gRPC."
    )
    exports_dir: str = Field(
        "", description="Folder in which exports beside the service tell how far they are, for /readyz."
    )
    model_names: str = Field(
        "", description="Comma-separated models to list, for a server that cannot list its own (TensorFlow Serving)."
    )
    backend_timeout_seconds: float = Field(30.0, gt=0, description="Deadline of one call to the model server, seconds.")
    backend_keepalive_seconds: float = Field(
        KEEPALIVE_SECONDS,
        ge=0,
        description="How often an idle connection to the model server is pinged, seconds; 0: never. TensorFlow Serving "
        "permits 300; the embedded one 10.",
    )
    merge: bool = Field(
        True, description="Merge concurrent requests of a worker into shared calls to the model server."
    )
    merge_pictures: int = Field(32, ge=1, description="Most images in a merged call; fewer when they are large.")
    model_threads: int = Field(
        0, ge=0, description="Threads per operation in the embedded model server; 0: half the CPUs."
    )
    max_image_bytes: int = Field(LIMITS.max_image_bytes, ge=1, description="Largest image, bytes.")
    max_image_pixels: int = Field(LIMITS.max_image_pixels, ge=1, description="Largest image, width x height.")
    max_images: int = Field(128, ge=1, description="Most images in one request.")
    max_request_pixels: int = Field(
        LIMITS.max_request_pixels, ge=1, description="Most pixels of all images of one request together."
    )
    decode_threads: int = Field(
        0, ge=0, description="Threads of one process that decode large images; 0: one per CPU, at least 2."
    )
    decode_queue: int = Field(
        32, ge=1, description="Most requests that wait for such a thread; one more is answered 503 at once."
    )
    max_decode_bytes: int = Field(
        512_000_000,
        ge=1,
        description="Memory for what one process decodes at a time, bytes; what takes more is decoded alone.",
    )
    upload_seconds: float = Field(
        60.0, gt=0, description="Longest time for a request to arrive, seconds; with gevent only."
    )
    send_seconds: float = Field(
        30.0, gt=0, description="Longest time for a client to take an answer, seconds; with gevent only."
    )
    max_request_bytes: int = Field(100_000_000, ge=1, description="Largest request, bytes.")
    max_bytes_in_flight: int = Field(
        300_000_000,
        ge=1,
        description="Most bytes of all requests that one process holds; past it, the slowest upload is answered 503.",
    )
    max_json_bytes: int = Field(JSON_LIMITS.max_json_bytes, ge=1, description="Largest JSON body, bytes, unpacked.")
    max_json_values: int = Field(JSON_LIMITS.max_json_values, ge=1, description="Most values in a JSON body.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="DEBUG, INFO, WARNING or ERROR."
    )
    log_format: Literal["json", "text"] = Field("json", description="json: one object per line; text: for people.")

    api_keys: str = Field(
        "", repr=False, description="API keys as NAME:SHA256:SCOPE+SCOPE, comma-separated; empty: no key is needed."
    )
    api_keys_file: str = Field("", description="File of API keys, one entry per line; read again on SIGHUP.")
    insecure: bool = Field(False, description="Allow an address that others can reach without API keys.")
    rate_limit: str = Field(
        "", description="Most requests per API key, or per address without keys, such as 100/minute; empty: no limit."
    )
    rate_limit_storage: str = Field(
        "memory://",
        repr=False,
        description="Store of the rate limit: memory:// (per process) or redis://HOST:PORT (extra redis).",
    )
    trusted_proxies: int = Field(
        0,
        ge=0,
        description="Number of proxies in front; their X-Forwarded-For, -Proto, -Host, -Port and -Prefix are believed.",
    )
    cors_origins: str = Field("", description="Origins whose pages may read answers, comma-separated; *: all.")

    @field_validator("api_keys")
    @classmethod
    def _keys_can_be_read(cls, value: str) -> str:
        read_keys(_split(value))
        return value

    @field_validator("rate_limit")
    @classmethod
    def _rates_can_be_read(cls, value: str) -> str:
        if value:
            from serving.gateway.access.rates import check_rates  # slow to import, and rarely needed

            check_rates(value)
        return value

    @field_validator("backend")
    @classmethod
    def _backends_can_be_read(cls, value: str) -> str:
        for target in _split(value):
            check_target(target)
        if not _split(value):
            raise ValueError("it names no model server")
        return value

    @model_validator(mode="after")
    def _tls_is_complete(self) -> Self:
        files = [name for name in TLS_SETTINGS if getattr(self, name)]
        if files and not self.backend_tls:
            raise ValueError(f"{files[0]} is given without backend_tls")
        if bool(self.backend_tls_certificate) != bool(self.backend_tls_key):
            raise ValueError("backend_tls_certificate and backend_tls_key need each other; only one is given")
        return self

    @model_validator(mode="after")
    def _socket_is_of_one_backend(self) -> Self:
        if self.backend_socket and len(self.backends) > 1:
            raise ValueError("backend_socket belongs to one model server, and backend names several")
        return self

    @property
    def processes(self) -> int:
        """Number of gateway processes: `workers`, or one that suits this machine."""
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
        """The file of API keys; None where there is none."""
        return Path(self.api_keys_file) if self.api_keys_file else None

    @property
    def exports_folder(self) -> Path | None:
        """The folder `exports_dir`; None where no exports run beside the service."""
        return Path(self.exports_dir) if self.exports_dir else None

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """The origins in `cors_origins`."""
        return _split(self.cors_origins)

    @property
    def image_limits(self) -> ImageLimits:
        """The limits for images."""
        return ImageLimits(self.max_image_bytes, self.max_image_pixels, self.max_request_pixels)

    @property
    def json_limits(self) -> JsonLimits:
        """The limits for JSON bodies."""
        return JsonLimits(self.max_json_bytes, self.max_json_values)

    @property
    def decoding_threads(self) -> int:
        """Number of threads that decode in one process."""
        return self.decode_threads or max(FEWEST_THREADS, usable_cpus())

    @property
    def backends(self) -> tuple[str, ...]:
        """The model servers' addresses."""
        return _split(self.backend)

    @property
    def listed_models(self) -> tuple[str, ...]:
        """The names in `model_names`."""
        return _split(self.model_names)

    def environ(self) -> dict[str, str]:
        """Return the settings as the environment of a process that reads them again."""
        return {_variable(name): str(value) for name, value in self.model_dump().items()}


@dataclass(frozen=True, slots=True)
class Given:
    """Settings and their origin.

    sources: for each name a flag, a variable, a file, or `default`; settings of faces as `faces.<name>`.
    warnings: what the operator should change, for the entry point to log.
    """

    settings: Settings
    faces: FaceSettings
    sources: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    def environ(self) -> dict[str, str]:
        """Return all settings as the environment of a process that reads them again."""
        return self.settings.environ() | self.faces.environ()


Layer = dict[str, tuple[Any, str]]  # value and source by the name of the setting


def read_settings(environ: Mapping[str, str], flags: Mapping[str, Any] | None = None) -> Given:
    """Read all settings: flags go before the environment, that before the TOML file, that before the defaults.

    environ: SIGHTLINE_<NAME> and SIGHTLINE_FACES_<NAME>; SIGHTLINE_CONFIG names the file unless `flags["config"]` does.
    flags: values by the names of Settings, or `faces_<name>` for those of FaceSettings; None: not given.
    Raises UsageError for an unknown setting, a value that is not allowed, and an unreadable file.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    path = given.pop("config", None) or environ.get(CONFIG)
    of_file, table = _from_file(Path(path)) if path else ({}, {})
    for name in [name for name in given if name.startswith(FACE_FLAGS)]:
        environ = {**environ, face_variable(name.removeprefix(FACE_FLAGS)): str(given.pop(name))}
    warnings: list[str] = []
    layers = [
        _renamed(of_file, str, warnings),
        _renamed(_from_environ(environ), _variable, warnings),
        {name: (value, f"--{name.replace('_', '-')}") for name, value in given.items()},
    ]
    merged = {name: entry for layer in layers for name, entry in layer.items()}
    sources = {name: source for name, (_, source) in merged.items()}
    try:
        settings = Settings.model_validate({name: value for name, (value, _) in merged.items()})
    except ValidationError as exc:
        raise _refused(exc, sources) from exc
    faces = read_face_settings(environ, table, source=f"{path} [{FACES}]")
    origins = {name: sources.get(name, "default") for name in Settings.model_fields}
    return Given(settings, faces, origins | _face_sources(environ, table, str(path)), tuple(warnings))


def without_old_names(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without variables that have a new name, for a process that is given the new ones."""
    old = {_variable(name) for name in RENAMED}
    return {name: value for name, value in environ.items() if name not in old}


def require_safe(settings: Settings) -> None:
    """Raise UsageError where everybody could use the service and the operator did not say that this is intended.

    Raises UsageError, too, where the file of keys cannot be read.
    """
    if settings.key_file:
        read_key_file(settings.key_file)
    if settings.has_keys or settings.insecure or _is_loopback(settings.host):
        return
    raise UsageError(
        f"The gateway would listen on {settings.host} and answer everybody: there are no API keys.",
        hint="Make a key with `python -m serving.gateway.access.keys NAME` and set SIGHTLINE_API_KEYS or "
        "SIGHTLINE_API_KEYS_FILE, or give --insecure.",
    )


def url_host(host: str) -> str:
    """Return the host as URLs write it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def shown(given: Given) -> str:
    """Format the settings as a TOML file that names the source of each value. Secrets are hidden."""
    return "\n".join(
        [*_lines(given.settings, given.sources), f"[{FACES}]", *_lines(given.faces, given.sources, "faces.")]
    )


def _lines(settings: BaseModel, sources: Mapping[str, str], prefix: str = "") -> Iterator[str]:
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        text = _toml(SECRET) if not field.repr and value != field.default else _toml(value)
        yield f"# {field.description} [{sources[prefix + name]}]"
        yield f"{name} = {text}"


def _toml(value: Any) -> str:
    return json.dumps(value)  # TOML writes these types as JSON does


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _face_sources(environ: Mapping[str, str], table: Mapping[str, Any], path: str) -> dict[str, str]:
    sources = {}
    for name in FaceSettings.model_fields:
        variable = face_variable(name)
        sources[f"{FACES}.{name}"] = variable if variable in environ else path if name in table else "default"
    return sources


def _renamed(layer: Layer, spelled: Callable[[str], str], warnings: list[str]) -> Layer:
    """Give settings their new names, and add a warning for each old one. spelled: a name as the layer writes it."""
    for old, new in RENAMED.items():
        if old in layer:
            value, source = layer.pop(old)
            layer.setdefault(new, (value, source))
            where = "" if source == spelled(old) else f" ({source})"
            warnings.append(f"{spelled(old)} is now called {spelled(new)}{where}; the old name still works.")
    return layer


def _from_environ(environ: Mapping[str, str]) -> Layer:
    known = {_variable(name): name for name in (*Settings.model_fields, *RENAMED)}
    others = NOT_OURS | {face_variable(name) for name in FaceSettings.model_fields}
    found: Layer = {}
    for variable, value in environ.items():
        if variable in known:
            found[known[variable]] = (value, variable)
        elif variable.startswith(PREFIX) and variable not in others:
            raise _unknown(variable, "The environment", known.keys() | others)
    return found


def _from_file(path: Path) -> tuple[Layer, Mapping[str, Any]]:
    """Read the gateway's settings and the table of faces. Raises UsageError."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise UsageError(
            f"The settings file {path} cannot be read: {exc.strerror}.",
            hint="Check --config or SIGHTLINE_CONFIG.",
        ) from exc
    except ValueError as exc:  # not TOML, or not UTF-8
        raise UsageError(f"The settings file {path} is not TOML: {exc}.") from exc
    table = document.pop(FACES, {})
    if not isinstance(table, dict):
        raise UsageError(f"{path} sets {FACES} to {table!r}.", hint=f"[{FACES}] is a table of settings.")
    for name in document:
        if name not in Settings.model_fields and name not in RENAMED:
            raise _unknown(name, str(path), Settings.model_fields)
    return {name: (value, str(path)) for name, value in document.items()}, table


def _unknown(name: str, where: str, known: Iterable[str]) -> UsageError:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    meant = f"Did you mean {near[0]}? " if near else ""
    return UsageError(
        f"{where} sets {name}, which does not exist.",
        hint=f"{meant}`sightline serve --show-settings` lists all settings.",
    )


def _refused(exc: ValidationError, sources: Mapping[str, str]) -> UsageError:
    first = exc.errors(include_url=False)[0]
    if not first["loc"]:  # the input would be all settings, secrets included
        return UsageError(f"The settings contradict each other: {first['msg']}.")
    name = str(first["loc"][0])
    value = SECRET if name in Settings.model_fields and not Settings.model_fields[name].repr else first["input"]
    return UsageError(f"{name} is {value!r} ({sources.get(name, 'given')}): {first['msg']}.")


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
