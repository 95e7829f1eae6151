"""The models that are served: which versions are wanted, which are loaded, which one answers.

A version goes START -> LOADING -> AVAILABLE -> UNLOADING -> END and stays listed for the life of the process. One
thread decides, every 100 ms; loading runs in a pool, so that a slow or broken model delays no other. A version that is
no longer wanted goes only when a wanted one has taken over, and only after the calls that use it have ended.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import grpc

from serving.contract.card import CARD_SECONDS
from serving.contract.machine import usable_cpus
from serving.contract.versions import find_versions
from serving.model_server.versions.disk import Fingerprint, find_models, fingerprint, printable
from serving.model_server.versions.policies import Latest, ModelConfig
from serving.runtimes.status import CallError, failed_precondition, invalid_argument, not_found

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.1


class State(IntEnum):
    """tensorflow.serving.ModelVersionStatus.State"""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class Closable(Protocol):
    def close(self) -> None: ...


Servable = TypeVar("Servable", bound=Closable)


@dataclass(frozen=True, slots=True)
class RepositorySettings:
    """poll_seconds: how often the disk is read, 0 for once. load_retries: after the first try, `retry_seconds` apart.

    unavailable_labels: a new label may point at a version that is not loaded yet. fall_back: where the newest version
    cannot be loaded and none is, load the next older one. reuse_seconds: how long a number rests before other files
    answer under it; until then a gateway may name their classes by the card that it has cached.
    """

    poll_seconds: float = 1.0
    load_retries: int = 5
    retry_seconds: float = 60.0
    unavailable_labels: bool = False
    fall_back: bool = False
    reuse_seconds: float = CARD_SECONDS + 1


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """A version as GetModelStatus reports it.

    error: of the last attempt to load it, from the first failure on until one succeeds.
    """

    version: int
    state: State
    error: CallError | None


@dataclass(frozen=True, slots=True)
class Readiness:
    """available: models that answer. loading: versions that were on disk at the start and have neither answered nor
    failed yet. failed: versions that could not be loaded, so far or for good.
    """

    available: tuple[str, ...]
    loading: tuple[tuple[str, int], ...]
    failed: tuple[tuple[str, int, CallError], ...]


@dataclass(slots=True)
class _VersionRecord(Generic[Servable]):
    number: int
    path: Path
    state: State = State.START
    error: CallError | None = None
    servable: Servable | None = None
    users: int = 0
    in_flight: bool = False
    failures: int = 0
    retry_at: float = 0.0
    tried: Fingerprint = ()  # the files of the directory at the last attempt
    listed: Fingerprint = ()  # its files now; read only for a version that has failed
    is_quiet: bool = False  # unchanged since the poll before
    served: Fingerprint = ()  # the files that last answered under this number
    served_until: float = 0.0  # when they were unloaded, of time.monotonic


@dataclass(slots=True)
class _ModelRecord(Generic[Servable]):
    config: ModelConfig
    versions: dict[int, _VersionRecord[Servable]] = field(default_factory=dict)
    on_disk: dict[int, Path] | None = None  # None: never listed
    wanted: bool = True
    complaint: str = ""  # last logged about its folder, so that it is logged once


class Repository(Generic[Servable]):
    """Load what the configuration and the disk ask for, and lend it to calls.

    load: turns a model's name, version and directory into something that answers. Whatever it raises is a failure of
    that version.
    """

    def __init__(
        self,
        load: Callable[[str, int, Path], Servable],
        settings: RepositorySettings,
        *,
        models_dir: Path | None = None,
        configs: Sequence[ModelConfig] = (),
    ) -> None:
        self._load = load
        self._settings = settings
        self._models_dir = models_dir
        self._complaint = ""  # last logged about that folder
        self._models: dict[str, _ModelRecord[Servable]] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._starting: set[str] | None = None  # models whose first versions are loading; None before the first look
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._loaders = ThreadPoolExecutor(4 * usable_cpus(), thread_name_prefix="load")
        self._thread = threading.Thread(target=self._watch, name="repository", daemon=True)
        if configs:
            self.configure(configs)

    def start(self) -> None:
        """Begin to watch the disk and to load."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching. What is loaded stays until the process ends, for calls that still run."""
        self._stop.set()
        self._thread.join()
        self._loaders.shutdown(wait=False, cancel_futures=True)

    # For calls.

    @contextmanager
    def use(self, name: str, version: int | None = None, label: str | None = None) -> Iterator[tuple[int, Servable]]:
        """Borrow the version that answers; it is not unloaded meanwhile. Raises CallError, in the server's words."""
        with self._changed:
            chosen = self._choose(name, version, label)
            chosen.users += 1
            assert chosen.servable is not None
            lent = chosen.number, chosen.servable
        try:
            yield lent
        finally:
            with self._changed:
                chosen.users -= 1

    def statuses(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """List every version that was ever seen, newest first, or the one asked for. Raises CallError."""
        with self._changed:
            model = self._models.get(name)
            known = dict(model.versions) if model else {}
            if version is not None and version not in known:
                raise not_found(f"Could not find version {version} of model {name}")
            if not known:
                raise not_found(f"Could not find any versions of model {name}")
            chosen = [known[version]] if version is not None else [known[v] for v in sorted(known, reverse=True)]
            return [VersionStatus(v.number, v.state, v.error) for v in chosen]

    @property
    def follows_folder(self) -> bool:
        """True where a folder decides which models are served, not a configuration."""
        return self._models_dir is not None

    def model_names(self) -> list[str]:
        """List the models that are wanted, loaded or not, sorted."""
        with self._changed:
            return sorted(name for name, model in self._models.items() if model.wanted)

    def loaded(self) -> list[tuple[str, int, Servable]]:
        """List the name, number and servable of every version that answers."""
        with self._changed:
            return [
                (name, version.number, version.servable)
                for name, model in sorted(self._models.items())
                for version in model.versions.values()
                if version.state == State.AVAILABLE and version.servable is not None
            ]

    def readiness(self) -> Readiness:
        """Tell which models answer, which versions are still loading since the start, and which have failed."""
        with self._changed:
            wanted = {name: model for name, model in sorted(self._models.items()) if model.wanted}
            aspired = {name: self._aspired(model) for name, model in wanted.items()}
            records = [(name, number, wanted[name].versions.get(number)) for name in wanted for number in aspired[name]]
            starting = self._starting or set()
            loading = [
                (name, number)
                for name, number, record in records
                if name in starting
                and (record is None or (record.state in (State.START, State.LOADING) and not record.failures))
            ]
            starting &= {name for name, _ in loading}  # what has started once is not starting again
            failed = [
                (name, number, record.error)
                for name, number, record in records
                if record is not None and record.failures and record.error is not None
            ]
            return Readiness(tuple(name for name in wanted if self._answers(name)), tuple(loading), tuple(failed))

    def wait_until_listed(self, give_up: Callable[[], bool] = lambda: False) -> None:
        """Block until the disk has been read once."""
        with self._changed:
            while self._starting is None and not give_up():
                self._changed.wait(TICK_SECONDS)

    def wait_until_settled(
        self, names: Sequence[str], *, what: str, give_up: Callable[[], bool] = lambda: False
    ) -> None:
        """Block until each model answers, or has only failed. A model without any version on disk is waited for.

        what: the word for a model in the message. Raises CallError (UNKNOWN) naming what did not become available.
        """
        with self._changed:
            while not give_up() and not all(self._is_settled(name) for name in names):
                self._changed.wait(TICK_SECONDS)
            dead = [name for name in names if not self._answers(name)]
            broken = [(name, v) for name in dead for v in self._models[name].versions.values() if v.error]
        if broken:
            each = "".join(f"{{name: {name} version: {v.number}}} due to error: {v.error}}}, " for name, v in broken)
            message = f"{len(broken)} {what}(s) did not become available: {{{each}}}"
            raise CallError(grpc.StatusCode.UNKNOWN, message)

    # For the configuration.

    def configure(self, configs: Sequence[ModelConfig]) -> list[str]:
        """Replace the list of models. Returns the names that are new. Raises CallError and then changes nothing."""
        with self._changed:
            labels = self._checked_labels(configs)
            self._models_dir = None  # from now on the list decides, not the folder
            new = [c.name for c in configs if c.name not in self._models or not self._models[c.name].wanted]
            for name, model in self._models.items():
                model.wanted = any(config.name == name for config in configs)
            for config in configs:
                model = self._models.setdefault(config.name, _ModelRecord(config))
                model.config, model.wanted = config, True
                if config.name in new:
                    model.on_disk = None
            self._labels = labels
        return new

    # The rest runs with the lock held, but for `_watch`, `_list_disk` and `_try_load`.

    def _choose(self, name: str, version: int | None, label: str | None) -> _VersionRecord[Servable]:
        if label is not None:
            version = self._labels.get(name, {}).get(label)
            if version is None:
                raise invalid_argument(f"Unrecognized servable version label: {label}")
        model = self._models.get(name)
        ready = {v.number: v for v in model.versions.values() if v.state == State.AVAILABLE} if model else {}
        if version is None and ready:
            return ready[max(ready)]
        if version in ready:
            return ready[version]
        what = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise not_found(f"Servable not found for request: {what}")

    def _checked_labels(self, configs: Sequence[ModelConfig]) -> dict[str, dict[str, int]]:
        for config in configs:
            known = self._labels.get(config.name, {})
            model = self._models.get(config.name)
            for label, version in config.labels.items():
                record = model.versions.get(version) if model else None
                if record is not None and record.state == State.AVAILABLE:
                    continue
                if self._settings.unavailable_labels and label not in known:
                    continue
                if known.get(label) == version and self._settings.unavailable_labels:
                    continue
                raise failed_precondition(
                    f"Request to assign label to version {version} of model {config.name}, "
                    "which is not currently available for inference"
                )
        return {config.name: dict(config.labels) for config in configs}

    def _watch(self) -> None:
        next_poll = 0.0
        polls = 0
        while not self._stop.is_set():
            now = time.monotonic()
            try:
                if now >= next_poll and (self._settings.poll_seconds > 0 or polls == 0 or self._has_unlisted()):
                    polls += 1
                    next_poll = now + self._settings.poll_seconds
                    self._list_disk()
                with self._changed:
                    for model in self._models.values():
                        self._reconcile(model, now)
            except Exception:  # whatever a folder holds, the next look may succeed
                logger.exception("the models could not be looked after; trying again")
            with self._changed:
                if self._starting is None:
                    self._starting = set(self._models)
                    self._changed.notify_all()
            self._stop.wait(TICK_SECONDS)

    def _has_unlisted(self) -> bool:
        with self._changed:
            return any(model.wanted and model.on_disk is None for model in self._models.values())

    def _list_disk(self) -> None:
        """Read the disk, without the lock. A folder that cannot be listed changes nothing, and for its model only."""
        if self._models_dir is not None:
            self._find_models(self._models_dir)
        with self._changed:
            models = [model for model in self._models.values() if model.wanted]
        for model in models:
            try:
                self._list_model(model, model.config)
            except Exception:
                logger.exception("%s could not be listed", model.config.name)

    def _list_model(self, model: _ModelRecord[Servable], config: ModelConfig) -> None:
        try:
            on_disk = find_versions(config.base_path)
        except OSError as exc:
            _complain(model, f"Could not find base path {config.base_path} for servable {config.name}: {exc.strerror}")
            return
        none = f"No versions of servable {config.name} found under base path {config.base_path}"
        _complain(model, "" if on_disk else none)
        with self._changed:
            failed = [v for v in model.versions.values() if v.failures]
        prints = {v.number: fingerprint(v.path) for v in failed}
        with self._changed:
            for version in failed:
                version.is_quiet = prints[version.number] == version.listed
                version.listed = prints[version.number]
            if model.config is config:
                model.on_disk = on_disk

    def _find_models(self, models_dir: Path) -> None:
        try:
            found, unnamable = find_models(models_dir)
        except OSError as exc:
            self._complain(f"Could not list {models_dir}: {exc.strerror}")
            return
        names = ", ".join(unnamable)
        self._complain(f"Left out of {models_dir}, because their names are not UTF-8: {names}" if names else "")
        with self._changed:
            for name, path in found.items():
                model = self._models.setdefault(name, _ModelRecord(ModelConfig(name, path)))
                model.wanted = True
            for name, model in self._models.items():
                model.wanted = name in found
                if not model.wanted:
                    model.on_disk = {}

    def _complain(self, complaint: str) -> None:
        if complaint and complaint != self._complaint:
            logger.warning(complaint)
        self._complaint = complaint

    def _aspired(self, model: _ModelRecord[Servable]) -> dict[int, Path]:
        """Return the versions that the policy asks for and, where none of them can be loaded, the next older one."""
        if not model.wanted or not model.on_disk:
            return {}
        chosen = model.config.policy.select(model.on_disk)
        if self._settings.fall_back and isinstance(model.config.policy, Latest):
            for version in sorted(set(model.on_disk) - chosen, reverse=True):
                if not all(v in model.versions and model.versions[v].failures for v in chosen):
                    break
                chosen.add(version)
        return {version: model.on_disk[version] for version in chosen}

    def _reconcile(self, model: _ModelRecord[Servable], now: float) -> None:
        if model.on_disk is None and model.wanted:
            return
        aspired = self._aspired(model)
        for number, path in aspired.items():
            self._advance(model, number, path, now)
        gone = [v for v in model.versions.values() if v.number not in aspired]
        for version in gone:
            if version.state in (State.START, State.LOADING) and not version.in_flight:
                self._set(model, version, State.END)
            elif version.state == State.END and not (model.on_disk and version.number in model.on_disk):
                version.failures, version.error = 0, None  # its directory is gone; should it return, it is tried again
        for version in self._droppable(model, aspired, gone):
            self._set(model, version, State.UNLOADING)
        for version in model.versions.values():
            if version.state == State.UNLOADING and not version.users:
                self._unload(model, version)

    def _advance(self, model: _ModelRecord[Servable], number: int, path: Path, now: float) -> None:
        """Take a wanted version one step further: note it, or try to load it."""
        version = model.versions.get(number)
        has_changed = bool(version and version.failures and version.is_quiet and version.listed != version.tried)
        if version is None or (version.state == State.END and (not version.failures or has_changed)):
            before, version = version, _VersionRecord(number, path)
            if before is not None:
                version.error, version.served, version.served_until = before.error, before.served, before.served_until
            model.versions[number] = version
        if version.state not in (State.START, State.LOADING) or version.in_flight:
            return
        if now >= version.retry_at or has_changed:
            version.in_flight = True
            self._set(model, version, State.LOADING)
            self._loaders.submit(self._try_load, model, version)

    def _try_load(self, model: _ModelRecord[Servable], version: _VersionRecord[Servable]) -> None:
        """Load one version; the lock is not held meanwhile."""
        name, started = model.config.name, time.monotonic()
        found: Fingerprint = ()
        logger.info("loading %s version %d from %s", name, version.number, version.path)
        try:
            found = fingerprint(version.path)
            self._rest(model, version, found)
            servable = self._load(name, version.number, version.path)
        except BaseException as exc:  # noqa: BLE001  the version failed, whatever it raised
            error = _load_error(exc)
            with self._changed:
                self._note_failure(model, version, error, found)
            return
        with self._changed:
            version.servable, version.error, version.failures, version.in_flight = servable, None, 0, False
            version.served = found
            self._set(model, version, State.AVAILABLE)
        logger.info("%s version %d is available after %.2f s", name, version.number, time.monotonic() - started)

    def _rest(self, model: _ModelRecord[Servable], version: _VersionRecord[Servable], found: Fingerprint) -> None:
        """Wait until no gateway has cached the card of other files that answered under the version's number."""
        seconds = version.served_until + self._settings.reuse_seconds - time.monotonic()
        if version.served_until and found != version.served and seconds > 0:
            name, number = model.config.name, version.number
            logger.info(
                "%s version %d was put in place of another version %d: waiting %.1f s, for gateways that have "
                "cached its card",
                name,
                number,
                number,
                seconds,
            )
            self._stop.wait(seconds)

    def _note_failure(
        self, model: _ModelRecord[Servable], version: _VersionRecord[Servable], error: CallError, found: Fingerprint
    ) -> None:
        """Wait and try again; give up after so many attempts at the same files. A copy that goes on begins anew."""
        version.failures = version.failures + 1 if found == version.tried else 1
        version.tried = version.listed = found
        version.in_flight, version.is_quiet = False, False
        version.retry_at = time.monotonic() + self._settings.retry_seconds
        version.error = error
        logger.error("%s version %d, attempt %d: %s", model.config.name, version.number, version.failures, error)
        self._set(model, version, State.END if version.failures > self._settings.load_retries else version.state)

    def _droppable(
        self, model: _ModelRecord[Servable], aspired: Mapping[int, Path], gone: Sequence[_VersionRecord[Servable]]
    ) -> list[_VersionRecord[Servable]]:
        """Choose the old versions to drop: all once a wanted one answers or none is wanted, else all but the newest."""
        ready = sorted((v for v in gone if v.state == State.AVAILABLE), key=lambda v: v.number)
        answers = any(v.state == State.AVAILABLE for v in model.versions.values() if v.number in aspired)
        return ready if answers or not aspired else ready[:-1]

    def _unload(self, model: _ModelRecord[Servable], version: _VersionRecord[Servable]) -> None:
        servable, version.servable, version.served_until = version.servable, None, time.monotonic()
        self._set(model, version, State.END)
        if servable is not None:
            self._loaders.submit(servable.close)

    def _set(self, model: _ModelRecord[Servable], version: _VersionRecord[Servable], state: State) -> None:
        logger.debug("%s version %d: %s", model.config.name, version.number, state.name)
        version.state = state
        self._changed.notify_all()

    def _is_settled(self, name: str) -> bool:
        """Return True once all wanted versions answer or have ended; a retried one counts where another answers."""
        model = self._models[name]
        wanted = [model.versions.get(number) for number in self._aspired(model)]
        return bool(wanted) and all(
            v is not None and (v.state in (State.AVAILABLE, State.END) or (v.failures and self._answers(name)))
            for v in wanted
        )

    def _answers(self, name: str) -> bool:
        return any(v.state == State.AVAILABLE for v in self._models[name].versions.values())


def _load_error(exc: BaseException) -> CallError:
    """Turn whatever a load raised into the version's error, in printable words; log it where it was not foreseen."""
    if isinstance(exc, CallError):
        return CallError(exc.code, printable(exc.message))
    if isinstance(exc, PermissionError):
        return CallError(grpc.StatusCode.PERMISSION_DENIED, printable(f"{exc.filename} may not be read"))
    if isinstance(exc, OSError):
        return CallError(grpc.StatusCode.DATA_LOSS, printable(f"{exc.filename} cannot be read: {exc.strerror}"))
    logger.error("a version could not be loaded, by an error that was not foreseen", exc_info=exc)
    return CallError(grpc.StatusCode.UNKNOWN, printable(f"{type(exc).__name__}: {exc}"))


def _complain(model: _ModelRecord[Servable], complaint: str) -> None:
    if complaint and complaint != model.complaint:
        logger.warning(complaint)
    model.complaint = complaint
