"""dlib and the weights of face_recognition_models, loaded without surprises.

`import face_recognition` is not used to serve: it loads five models (149 MB), it makes Pillow accept truncated
pictures in the whole process, and where setuptools is 82 or newer, or absent, it prints a line and calls `quit()`
with exit status 0. The weights are the same files, and the tests hold the numbers against face_recognition's own.
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
    """The module dlib. Raises FacesNotInstalled."""
    try:
        return importlib.import_module("dlib")
    except ImportError as exc:
        raise FacesNotInstalled(f"dlib cannot be imported: {exc}", hint=INSTALL) from exc


def weights_file(name: str) -> Path:
    """The path of one of the WEIGHTS. Raises FacesNotInstalled where face_recognition_models is not installed."""
    # found without importing the package, which wants pkg_resources
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or spec.origin is None:
        raise FacesNotInstalled("face_recognition_models is not installed", hint=INSTALL)
    path = Path(spec.origin).parent / "models" / WEIGHTS[name]
    if not path.is_file():
        raise FacesNotInstalled(f"face_recognition_models has no {path.name}", hint=INSTALL)
    return path


@cache
def encoder_name() -> EncoderName:
    """The name and the version (of the weights' file) of the vectors that dlib's encoder makes."""
    path = weights_file("encoder")
    return EncoderName(path.stem, hashlib.sha256(path.read_bytes()).hexdigest()[:12])


def import_face_recognition() -> Any:
    """The module face_recognition, on any setuptools or none; Pillow keeps refusing truncated pictures.

    Raises FacesNotInstalled with what it printed where it would have quit.
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
            f"face_recognition gave up while it was imported: {said.getvalue().strip()}", hint=INSTALL
        ) from exc
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = truncated


@contextlib.contextmanager
def _pkg_resources() -> Iterator[None]:
    """While it lasts, `pkg_resources.resource_filename` exists, as face_recognition_models wants it."""
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
