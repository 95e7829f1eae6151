"""The manifest of a version: the SHA-256 of each of its files, written by the export and checked when it is loaded.

A manifest finds what was damaged, lost, added or swapped since the export. It is not signed: whoever can write the
version can write another manifest.
"""

import hashlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path

from serving.contract.errors import ModelError

MANIFEST_FILE = Path("assets.extra") / "manifest.json"
SCHEMA_VERSION = 1
NAMED = 3  # differences in a message; more are counted

# Files that file managers and NFS leave in any folder, and that nothing in a version reads.
BYSTANDERS = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
BYSTANDER_PREFIXES = ("._", ".nfs")


def write_manifest(version_dir: Path) -> None:
    """Write the manifest of a version whose other files are complete."""
    files = {name: _sha256(path) for name, path in _files(version_dir) if not is_bystander(path.name)}
    path = version_dir / MANIFEST_FILE
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"schema_version": SCHEMA_VERSION, "files": files}, indent=1) + "\n", encoding="utf-8")


def check_files(version_dir: Path) -> bool:
    """Compare a version's files with its manifest. Returns False where it has no manifest.

    Raises ModelError where a file differs, is missing or is one too many, or the manifest is damaged; also, with or
    without a manifest, for what cannot be a version's part: a pipe, a device, a link into its own parents. Raises
    OSError where something cannot be read.
    """
    found = dict(_files(version_dir))
    manifest = version_dir / MANIFEST_FILE
    if not manifest.exists():
        return False
    wanted = _read(manifest)
    found = {name: path for name, path in found.items() if name in wanted or not is_bystander(path.name)}
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} was added" for name in found if name not in wanted]
    problems += [f"{name} was changed" for name in found if name in wanted and wanted[name] != _sha256(found[name])]
    if problems:
        named = "; ".join(problems[:NAMED])
        more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        raise ModelError(
            f"the files differ from the manifest that the export wrote: {named}{more}", hint="Export the model again."
        )
    return True


def is_bystander(name: str) -> bool:
    """Return True for a file that a system leaves behind and that is no part of any version."""
    return name in BYSTANDERS or name.startswith(BYSTANDER_PREFIXES)


def _files(version_dir: Path) -> Iterator[tuple[str, Path]]:
    """List a version's files but the manifest, each under its name with slashes. Links are followed."""
    yield from _walk(version_dir, version_dir, ())


def _walk(folder: Path, root: Path, parents: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, Path]]:
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in parents:
        raise ModelError(f"{folder} is a link to one of its own parents", hint="Remove the link.")
    for path in sorted(folder.iterdir()):
        relative = path.relative_to(root)
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            yield from _walk(path, root, (*parents, identity))
        elif not stat.S_ISREG(kind):
            raise ModelError(f"{path} is neither a file nor a folder", hint="Remove it.")
        elif relative != MANIFEST_FILE:
            yield relative.as_posix(), path


def _read(path: Path) -> dict[str, str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema, files = content["schema_version"], content["files"]
        if schema == SCHEMA_VERSION and files and all(isinstance(digest, str) for digest in files.values()):
            return dict(files)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as exc:
        raise ModelError(f"{path} cannot be read: {exc}", hint="Export the model again.") from exc
    raise ModelError(f"{path} is no manifest of schema {SCHEMA_VERSION}", hint="Export the model again.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
