"""API keys: who may ask for what. `python -m serving.gateway.access.keys NAME [SCOPE ...]` makes one.

Only a key's SHA-256 stands in the settings. That is enough because a key is 32 random bytes: there is nothing to guess.
"""

import hashlib
import hmac
import logging
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from serving.contract.errors import Forbidden, Unauthenticated, UsageError

log = logging.getLogger(__name__)

Scope = Literal["predict", "faces", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
HEX_DIGITS = 64  # of a SHA-256
KEY_BYTES = 32
HINT = "Send `Authorization: Bearer KEY`."


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key of the settings: NAME:SHA256:SCOPE+SCOPE. admin may do everything."""

    name: str
    sha256: str
    scopes: frozenset[str]


def read_keys(entries: Sequence[str]) -> tuple[ApiKey, ...]:
    """The keys of the settings. Raises ValueError for one that is not NAME:SHA256:SCOPES, without showing it."""
    return tuple(_read_key(entry, number) for number, entry in enumerate(entries, 1))


def read_key_file(path: Path) -> tuple[ApiKey, ...]:
    """The keys of a file: an entry a line; what follows # does not count. Raises UsageError."""
    try:
        lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
        keys = read_keys([line for line in lines if line])
    except (OSError, ValueError) as exc:
        raise UsageError(f"the file of API keys {path} cannot be read: {exc}") from exc
    if not keys:
        raise UsageError(
            f"the file of API keys {path} holds none",
            hint="`python -m serving.gateway.access.keys NAME` makes one; without the file everybody may ask.",
        )
    return keys


class KeyRing:
    """The keys that hold now: those of the settings and those of a file, read again when `generation` changes.

    file: None for none. A file that cannot be read any more leaves the keys as they were. Raises UsageError at first.
    """

    def __init__(self, entries: Sequence[str], file: Path | None, generation: Callable[[], int]) -> None:
        self._fixed = read_keys(entries)
        self._file = file
        self._generation = generation
        self._seen = generation()
        self._keys = self._fixed + (read_key_file(file) if file else ())

    def current(self) -> tuple[ApiKey, ...]:
        """Empty where everybody may ask."""
        if self._file is not None and self._seen != (now := self._generation()):
            self._seen = now
            try:
                self._keys = self._fixed + read_key_file(self._file)
            except UsageError as exc:
                log.error("%s; the keys stay as they were", exc)
        return self._keys


def authenticate(keys: Sequence[ApiKey], authorization: str) -> ApiKey:
    """Whose key the header holds. Every key is compared, in constant time. Raises Unauthenticated."""
    kind, _, given = authorization.partition(" ")
    digest = hashlib.sha256(given.strip().encode("utf-8", "surrogateescape")).hexdigest()
    found = [key for key in keys if hmac.compare_digest(key.sha256, digest)]
    if kind.lower() != "bearer" or not found:
        what = "the API key is not known" if authorization else "an API key is needed"
        raise Unauthenticated(what, hint=HINT)
    return found[0]


def authorize(key: ApiKey, scope: Scope) -> None:
    """Raises Forbidden where the key has no such scope."""
    if scope not in key.scopes and "admin" not in key.scopes:
        raise Forbidden(
            f"the key {key.name!r} has no scope {scope!r}; it has {', '.join(sorted(key.scopes))}",
            hint="Ask whoever runs the service for a key that has it.",
        )


def scope_of(method: str, path: str) -> Scope | None:
    """What a request needs; None where any key will do. Whatever changes the known set is for admin."""
    lowered = path.lower()
    if lowered.startswith("/faces"):
        asks = method in ("GET", "HEAD") or lowered.startswith(("/faces/identify", "/faces/compare"))
        return "faces" if asks else "admin"
    return "predict" if lowered.startswith(("/predict", "/models", "/v1", "/v2")) else None


def new_key(name: str, scopes: Sequence[str]) -> tuple[str, str]:
    """A fresh key, and its entry for the settings."""
    key = secrets.token_urlsafe(KEY_BYTES)
    entry = f"{name}:{hashlib.sha256(key.encode()).hexdigest()}:{'+'.join(scopes)}"
    read_keys([entry])
    return key, entry


def _read_key(entry: str, number: int) -> ApiKey:
    parts = entry.split(":")
    scopes = frozenset(parts[2].split("+")) if len(parts) == 3 else frozenset()
    is_digest = len(parts) == 3 and len(parts[1]) == HEX_DIGITS and set(parts[1].lower()) <= set("0123456789abcdef")
    if not is_digest or not parts[0] or not scopes <= set(SCOPES):
        raise ValueError(f"key {number} is not NAME:SHA256:SCOPE+SCOPE with scopes of {', '.join(SCOPES)}")
    return ApiKey(parts[0], parts[1].lower(), scopes)


def _main(args: Sequence[str]) -> None:
    if not args:
        raise SystemExit(f"usage: python -m serving.gateway.access.keys NAME [SCOPE ...]; scopes: {', '.join(SCOPES)}")
    try:
        key, entry = new_key(args[0], args[1:] or ["predict"])
    except ValueError as exc:
        raise SystemExit(str(UsageError(str(exc)))) from exc
    print(f"Give this to {args[0]}; it is shown once:\n  {key}")
    print(f"Add this to SIGHTLINE_API_KEYS, or as a line to the file SIGHTLINE_API_KEYS_FILE:\n  {entry}")


if __name__ == "__main__":
    _main(sys.argv[1:])
