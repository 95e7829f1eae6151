"""A SavedModel to the file that LiteRT runs, `model.tflite` beside it: the same answers, sooner, where there is no GPU.

The name is TensorFlow Serving's, which leaves the file alone unless it is told --prefer_tflite_model.
"""

import re
from pathlib import Path
from typing import Any

import numpy.typing as npt

from export.progress import say
from serving.contract.golden import Proof
from serving.contract.versions import TFLITE_FILE
from serving.runtimes.tensorflow_start import native_stderr_held_back, start_tensorflow

MISSING_OPERATION = re.compile(r"'tf\.(\w+)' op is neither a custom op")
MOST_CHARS = 200  # of an error that nobody foresaw


class LiteError(Exception):
    """LiteRT cannot run it."""


def write_tflite(folder: Path, signatures: list[str], proof: Proof) -> None:
    """Write model.tflite of a version's SavedModel; say why, where it is not written: then TensorFlow runs the version.

    signatures: all of the SavedModel. It is not written where an operation is missing in LiteRT, or where an answer
    differs by more than half of what the proof allows.
    """
    path = folder / TFLITE_FILE
    try:
        path.write_bytes(_converted(folder, signatures))
        moved = proof.difference(lite_answers(folder, proof))
    except LiteError as exc:
        path.unlink(missing_ok=True)
        say(f"no {TFLITE_FILE} is written: {exc}")
        return
    if not moved <= proof.atol / 2:
        path.unlink()
        say(f"no {TFLITE_FILE} is written: answers would move by {moved:.1e}")


def lite_answers(folder: Path, proof: Proof) -> npt.NDArray[Any]:
    """What model.tflite answers to what the proof gives it, float32 (n, ...). Raises LiteError."""
    start_tensorflow()  # which sets the level of the log that LiteRT shares
    with native_stderr_held_back():
        from ai_edge_litert.interpreter import Interpreter

        try:
            run = Interpreter(model_path=str(folder / TFLITE_FILE)).get_signature_runner(proof.signature)
            answers: npt.NDArray[Any] = run(**{proof.input: proof.given})[proof.output]
        except (ValueError, RuntimeError, KeyError) as exc:
            raise LiteError(f"LiteRT cannot run it: {exc}") from exc
    return answers


def _converted(folder: Path, signatures: list[str]) -> bytes:
    tf = start_tensorflow()
    from tensorflow.lite.python.convert_phase import ConverterError

    with native_stderr_held_back():
        try:
            converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=signatures)
            converted: bytes = converter.convert()
        except (ConverterError, ValueError, RuntimeError) as exc:
            raise LiteError(_why_not(str(exc))) from exc
    return converted


def _why_not(error: str) -> str:
    """The converter's error, which tells where in the graph each operation stands, in a few words."""
    missing = sorted(set(MISSING_OPERATION.findall(error)))
    if missing:
        return f"LiteRT lacks {', '.join(missing)}"
    return f"it cannot be converted: {error.strip()[:MOST_CHARS]}"
