"""Archives as other systems make them."""

import unicodedata
import zipfile
from collections.abc import Mapping
from pathlib import Path

WINDOWS, UNIX = 0, 3  # APPNOTE.TXT, 4.4.2.2


class Unmarked(zipfile.ZipInfo):
    """A member whose name has no flag of UTF-8. name: its bytes."""

    def __init__(self, name: bytes, system: int) -> None:
        super().__init__(name.decode("latin-1"))
        self.name = name
        self.create_system = system

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802  # zipfile's
        return self.name, self.flag_bits


def windows_zip(path: Path, encoding: str, files: Mapping[str, bytes]) -> Path:
    """A zip of Windows' compressed folders: names in the system's encoding, with the separators that .NET wrote."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(Unmarked(name.replace("/", "\\").encode(encoding), WINDOWS), data)
    return path


def mac_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    """A zip of the Finder: decomposed names in UTF-8 without the flag, and what it leaves beside them."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            folder, _, base = name.rpartition("/")
            beside = {f"__MACOSX/{folder}/._{base}": b"\0\5\x16\7", f"{folder}/.DS_Store": b""}
            for written, content in {name: data, **beside}.items():
                archive.writestr(Unmarked(unicodedata.normalize("NFD", written).encode(), UNIX), content)
    return path
