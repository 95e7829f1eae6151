"""Load dlib and the weights of face_recognition_models without the side effects of `import face_recognition`.

That import loads five models (149 MB), makes Pillow accept truncated pictures in the whole process and, where
setuptools is absent or 82 and newer, prints a line and calls `quit()` with exit status 0. The weights here are the same
files; a test compares the encodings with face_recognition's.
"""

import contextlib
import hashlib
import importlib
import importlib.resources
import importlib.util
import io
import sys
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from PIL import ImageFile

from serving.contract.errors import FacesNotInstalled
from serving.faces.encoder import EncoderName

INSTALL = "Install the extra: pip install ./packaging/dlib-shim '.[faces]' (see docs/faces.md)."
WEIGHTS = {
    "landmarks": "shape_predictor_5_face_landmarks.dat",
    "encoder": "dlib_face_recognition_resnet_model_v1.dat",
    "cnn": "mmod_human_face_detector.dat",
}


def load_dlib() -> types.ModuleType:
    """Import dlib. Raises FacesNotInstalled."""
    try:
        return importlib.import_module("dlib")
    except ImportError as exc:
        raise FacesNotInstalled(f"dlib cannot be imported: {exc}", hint=INSTALL) from exc


def weights_file(name: str) -> Path:
    """Return the path of one of the WEIGHTS. Raises FacesNotInstalled."""
    # located without importing the package, which needs pkg_resources
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or spec.origin is None:
        raise FacesNotInstalled("face_recognition_models is not installed.", hint=INSTALL)
    path = Path(spec.origin).parent / "models" / WEIGHTS[name]
    if not path.is_file():
        raise FacesNotInstalled(f"face_recognition_models has no {path.name}.", hint=INSTALL)
    return path


@cache
def encoder_name() -> EncoderName:
    """Return the name of dlib's encoder and the version of its weights."""
    path = weights_file("encoder")
    return EncoderName(path.stem, hashlib.sha256(path.read_bytes()).hexdigest()[:12])


def import_face_recognition() -> Any:
    """Import face_recognition with any setuptools or none; Pillow keeps refusing truncated pictures.

    Raises FacesNotInstalled, with what face_recognition printed, where it would have quit.
    """
    said = io.StringIO()
    truncated = ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        with _pkg_resources(), contextlib.redirect_stdout(said):
            return importlib.import_module("face_recognition")
    except ImportError as exc:
        raise FacesNotInstalled(f"face_recognition cannot be imported: {exc}", hint=INSTALL) from exc
    except SystemExit as exc:
        raise FacesNotInstalled(
            f"face_recognition quit while it was imported: {said.getvalue().strip()}", hint=INSTALL
        ) from exc
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = truncated


@contextlib.contextmanager
def _pkg_resources() -> Iterator[None]:
    """Provide `pkg_resources.resource_filename`, which face_recognition_models calls, for the time of an import."""
    if "pkg_resources" in sys.modules:
        yield
        return
    stand_in = types.ModuleType("pkg_resources")
    stand_in.resource_filename = lambda package, name: str(importlib.resources.files(package) / name)  # type: ignore[attr-defined]
    sys.modules["pkg_resources"] = stand_in
    try:
        yield
    finally:
        sys.modules.pop("pkg_resources", None)
