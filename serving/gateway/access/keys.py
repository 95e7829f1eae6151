"""API keys and their scopes. `python -m serving.gateway.access.keys NAME [SCOPE ...]` makes a key.

The settings hold a key's SHA-256 only. An unsalted hash is enough: a key is 32 random bytes, which nobody guesses.
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

Scope = Literal["predict", "faces", "metrics", "admin"]
RouteScope = Scope | Literal["open"]  # what a route declares; open: no key is needed
SCOPES: tuple[Scope, ...] = get_args(Scope)
HEX_DIGITS = 64  # of a SHA-256
KEY_BYTES = 32
HINT = "Send `Authorization: Bearer KEY`."


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key of the settings, NAME:SHA256:SCOPE+SCOPE. The scope admin includes all others."""

    name: str
    sha256: str
    scopes: frozenset[str]


def read_keys(entries: Sequence[str]) -> tuple[ApiKey, ...]:
    """Parse the keys of the settings. Raises ValueError for a malformed entry, without showing it."""
    return tuple(_read_key(entry, number) for number, entry in enumerate(entries, 1))


def read_key_file(path: Path) -> tuple[ApiKey, ...]:
    """Read a file of keys: one entry per line, # starts a comment. Raises UsageError."""
    try:
        lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
        keys = read_keys([line for line in lines if line])
    except (OSError, ValueError) as exc:
        raise UsageError(f"The API key file {path} cannot be read: {exc}.") from exc
    if not keys:
        raise UsageError(
            f"The API key file {path} holds no key.",
            hint="Make one with `python -m serving.gateway.access.keys NAME`, or unset the file to serve everybody.",
        )
    return keys


class KeyRing:
    """The keys in force: those of the settings and those of a file, which is read again when `generation` changes.

    file: None where there is none. Raises UsageError when it cannot be read at construction; a later failure is logged
    and leaves the keys unchanged.
    """

    def __init__(self, entries: Sequence[str], file: Path | None, generation: Callable[[], int]) -> None:
        self._fixed = read_keys(entries)
        self._file = file
        self._generation = generation
        self._seen = generation()
        self._keys = self._fixed + (read_key_file(file) if file else ())

    def current(self) -> tuple[ApiKey, ...]:
        """Return the keys; none where the service is open to everybody."""
        if self._file is not None and self._seen != (now := self._generation()):
            self._seen = now
            try:
                self._keys = self._fixed + read_key_file(self._file)
            except UsageError as exc:
                log.error("%s The keys stay as they were.", exc)
        return self._keys


def authenticate(keys: Sequence[ApiKey], authorization: str) -> ApiKey:
    """Return the key that the header holds. Compares every key in constant time. Raises Unauthenticated."""
    kind, _, given = authorization.partition(" ")
    digest = hashlib.sha256(given.strip().encode("utf-8", "surrogateescape")).hexdigest()
    found = [key for key in keys if hmac.compare_digest(key.sha256, digest)]
    if kind.lower() != "bearer" or not found:
        detail = "The API key is not known." if authorization else "An API key is needed."
        raise Unauthenticated(detail, hint=HINT)
    return found[0]


def authorize(key: ApiKey, scope: Scope) -> None:
    """Raise Forbidden unless the key has the scope."""
    if scope not in key.scopes and "admin" not in key.scopes:
        raise Forbidden(
            f"The key {key.name!r} lacks the scope {scope!r}; it has {', '.join(sorted(key.scopes))}.",
            hint="Ask the service's operator for a key with that scope.",
        )


def new_key(name: str, scopes: Sequence[str]) -> tuple[str, str]:
    """Make a key and its entry for the settings."""
    key = secrets.token_urlsafe(KEY_BYTES)
    entry = f"{name}:{hashlib.sha256(key.encode()).hexdigest()}:{'+'.join(scopes)}"
    read_keys([entry])
    return key, entry


def _read_key(entry: str, number: int) -> ApiKey:
    parts = entry.split(":")
    scopes = frozenset(parts[2].split("+")) if len(parts) == 3 else frozenset()
    is_digest = len(parts) == 3 and len(parts[1]) == HEX_DIGITS and set(parts[1].lower()) <= set("0123456789abcdef")
    if not is_digest or not parts[0] or not scopes <= set(SCOPES):
        raise ValueError(f"key {number} is not NAME:SHA256:SCOPE+SCOPE; the scopes are {', '.join(SCOPES)}")
    return ApiKey(parts[0], parts[1].lower(), scopes)


def _main(args: Sequence[str]) -> None:
    if not args:
        raise SystemExit(f"usage: python -m serving.gateway.access.keys NAME [SCOPE ...]; scopes: {', '.join(SCOPES)}")
    try:
        key, entry = new_key(args[0], args[1:] or ["predict"])
    except ValueError as exc:
        raise SystemExit(str(UsageError(str(exc)))) from exc
    print(f"The key, for {args[0]}. It is shown only once:\n  {key}")
    print(f"Its entry, for SIGHTLINE_API_KEYS or a line of the file SIGHTLINE_API_KEYS_FILE:\n  {entry}")


if __name__ == "__main__":
    _main(sys.argv[1:])
