"""A folder of models on disk: `models/NAME/VERSION/`, a version being a whole number, as TensorFlow Serving has it."""

from pathlib import Path

GOLDEN_DIR = Path("assets.extra") / "golden"  # in a version: pictures to try, and what Keras says of them
SAVED_MODEL_FILE = "saved_model.pb"  # in a version: the graph and its signatures
TFLITE_FILE = "model.tflite"  # in a version: the same model for LiteRT; TensorFlow Serving's name for it
SERVE_TAG = "serve"  # of the graph in a SavedModel that is served
SERVING_CONFIG = "serving-config"  # a folder beside the models that holds TensorFlow Serving's files


def version_dirs(model_dir: Path) -> list[Path]:
    """The versions of a model on disk, oldest first; empty where there are none or the folder is missing."""
    if not model_dir.is_dir():
        return []
    return sorted((path for path in model_dir.iterdir() if _is_version(path)), key=lambda path: int(path.name))


def _is_version(path: Path) -> bool:
    return path.name.isascii() and path.name.isdecimal() and path.is_dir()
