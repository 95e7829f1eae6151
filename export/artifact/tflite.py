"""Convert a SavedModel to `model.tflite` beside it, which LiteRT runs: the same answers, faster on a CPU.

The name is TensorFlow Serving's, which ignores the file unless it is started with --prefer_tflite_model.
"""

import re
from dataclasses import replace
from pathlib import Path

from export.artifact.verify import replay_tflite
from export.progress import say
from serving.contract.golden import Proof
from serving.contract.versions import TFLITE_FILE
from serving.runtimes.runtime import NotFit
from serving.runtimes.tensorflow_start import native_stderr_held_back, start_tensorflow

MISSING_OPERATION = re.compile(r"'tf\.(\w+)' op is neither a custom op")
MOST_CHARS = 200  # of an unknown error


class CannotConvert(Exception):
    """TensorFlow's converter cannot convert the SavedModel."""


def write_tflite(folder: Path, signatures: list[str], proof: Proof) -> None:
    """Write model.tflite of a version's SavedModel. If it cannot be written, print why: TensorFlow serves the version.

    signatures: all of the SavedModel. The file is left out where LiteRT lacks an operation, or where a number differs
    from the proof by more than half of what the proof allows.
    """
    path = folder / TFLITE_FILE
    try:
        path.write_bytes(_convert(folder, signatures))
        replay_tflite(folder, replace(proof, atol=proof.atol / 2))
    except (CannotConvert, NotFit) as exc:
        path.unlink(missing_ok=True)
        say(f"no {TFLITE_FILE}: {exc}")


def _convert(folder: Path, signatures: list[str]) -> bytes:
    tf = start_tensorflow()
    from tensorflow.lite.python.convert_phase import ConverterError

    with native_stderr_held_back():
        try:
            converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=signatures)
            return bytes(converter.convert())
        except (ConverterError, ValueError, RuntimeError) as exc:
            error = exc
    raise CannotConvert(_reason(str(error))) from error  # outside the block, which would show the native messages


def _reason(error: str) -> str:
    """Shorten the converter's error, which lists the place of each operation in the graph."""
    missing = sorted(set(MISSING_OPERATION.findall(error)))
    if missing:
        return f"LiteRT lacks {', '.join(missing)}"
    return f"it cannot be converted: {error.strip()[:MOST_CHARS]}"
