"""Files and folders that are on the disk, not only in the system's memory."""

import os
from pathlib import Path


def flush(path: Path | str) -> None:
    """Wait until a file's content, or a folder's entries, are on the disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
