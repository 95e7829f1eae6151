"""Open a store by its URL. To add a store, write its module and add a row to STORES."""

from collections.abc import Callable
from pathlib import Path

from serving.contract.errors import FacesNotInstalled, UsageError
from serving.faces.galleries.empty_store import EmptyStore
from serving.faces.galleries.encryption import cipher_for
from serving.faces.galleries.gallery import Archive


def open_store(url: str, key: str = "") -> Archive:
    """Open the store that `url` names: `sqlite:///relative.db`, `sqlite:////absolute.db` or `postgresql://...`.

    key: see `encryption.cipher_for`. Raises UsageError for a URL that names no store, and what opening it raises.
    """
    scheme = url.partition("://")[0]
    if scheme not in STORES:
        raise UsageError(
            f"SIGHTLINE_FACES_URL is {url.partition('@')[0]!r}.", hint=f"It must begin with {'://, '.join(STORES)}://."
        )
    return STORES[scheme](url, key)


def open_for_reading(url: str, key: str = "") -> Archive:
    """Open the store that `url` names as `open_store` does, but make no file: without one, nobody is known."""
    return open_store(url, key) if missing_file(url) is None else EmptyStore()


def missing_file(url: str) -> Path | None:
    """Return the absolute path of a SQLite store's file if it does not exist, else None. Raises UsageError."""
    if not url.startswith("sqlite://") or (path := _sqlite_path(url)).exists():
        return None
    return path.absolute()


def _sqlite(url: str, key: str) -> Archive:
    from serving.faces.galleries.sqlite_store import SqliteStore

    return SqliteStore(_sqlite_path(url), cipher_for(key))


def _sqlite_path(url: str) -> Path:
    path = url.removeprefix("sqlite://").removeprefix("/")
    if not path:
        raise UsageError("SIGHTLINE_FACES_URL names no file.", hint="Write it as sqlite:///faces.db.")
    return Path(path)


def _postgres(url: str, key: str) -> Archive:
    if key:
        raise UsageError(
            "SIGHTLINE_FACES_KEY is set, but PostgreSQL cannot search encrypted encodings.",
            hint="Encrypt the database's disk instead, or use SQLite.",
        )
    try:
        from serving.faces.galleries.postgres_store import PostgresStore
    except ImportError as exc:
        raise FacesNotInstalled(
            f"PostgreSQL needs psycopg: {exc}",
            hint="Install it: pip install 'sightline-serving[postgres] @ file:///path/to/clone'.",
        ) from exc
    return PostgresStore(url)


STORES: dict[str, Callable[[str, str], Archive]] = {"sqlite": _sqlite, "postgresql": _postgres, "postgres": _postgres}
