"""The address at which a folder of models is served, in a file of the folder: exports end with it."""

import contextlib
import socket
from pathlib import Path
from urllib.parse import urlsplit

FILE = ".served-at"  # in the folder of models
CONNECT_SECONDS = 0.5


def write_address(models: Path, url: str) -> None:
    """Note the address; a folder that cannot be written goes without."""
    with contextlib.suppress(OSError):
        (models / FILE).write_text(url, encoding="utf-8")


def remove_address(models: Path) -> None:
    """Remove the note at the end of the service."""
    with contextlib.suppress(OSError):
        (models / FILE).unlink(missing_ok=True)


def read_address(models: Path) -> str | None:
    """Read the address; None where no service has noted one, or nothing listens there any more."""
    try:
        url = (models / FILE).read_text(encoding="utf-8")
        address = urlsplit(url)
        socket.create_connection((address.hostname or "", address.port or 80), CONNECT_SECONDS).close()
    except (OSError, ValueError):
        return None
    return url
