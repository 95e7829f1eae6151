"""A SavedModel to the file that LiteRT runs, `model.tflite` beside it: the same answers, sooner, where there is no GPU.

The name is TensorFlow Serving's, which leaves the file alone unless it is told --prefer_tflite_model.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.progress import say
from export.tensorflow_start import native_stderr_silenced, start_tensorflow
from serving.contract.card import CARD_SIGNATURE, ModelCard
from serving.contract.golden import GoldenExamples
from serving.contract.versions import TFLITE_FILE


class LiteError(Exception):
    """LiteRT cannot run it."""


def write_tflite(folder: Path, card: ModelCard, golden: GoldenExamples) -> None:
    """Write model.tflite of a version's SavedModel; say why, where it is not written: then TensorFlow runs the version.

    It is not where an operation is missing in LiteRT, or where an answer to the golden examples would differ by more
    than half of what the card allows.
    """
    path = folder / TFLITE_FILE
    try:
        path.write_bytes(_converted(folder, [card.input.signature, CARD_SIGNATURE]))
        answers = lite_answers(folder, card, golden)
    except LiteError as exc:
        path.unlink(missing_ok=True)
        say(f"no {TFLITE_FILE} is written: {exc}")
        return
    moved = float(np.abs(answers - golden.probabilities).max())
    if not moved <= card.golden.atol / 2:
        path.unlink()
        say(f"no {TFLITE_FILE} is written: answers would move by {moved:.1e}")


def lite_answers(folder: Path, card: ModelCard, golden: GoldenExamples) -> npt.NDArray[Any]:
    """What model.tflite answers to the golden examples, float32 (n, classes). Raises LiteError."""
    start_tensorflow()  # which sets the level of the log that LiteRT shares
    with native_stderr_silenced():
        from ai_edge_litert.interpreter import Interpreter

        try:
            interpreter = Interpreter(model_path=str(folder / TFLITE_FILE))
            run = interpreter.get_signature_runner(card.input.signature)
            answers: npt.NDArray[Any] = run(**{card.input.tensor: golden.tensors})[card.output.tensor]
        except (ValueError, RuntimeError, KeyError) as exc:
            raise LiteError(f"LiteRT cannot run it: {exc}") from exc
    return answers


def _converted(folder: Path, signatures: list[str]) -> bytes:
    tf = start_tensorflow()
    from tensorflow.lite.python.convert_phase import ConverterError

    with native_stderr_silenced():
        try:
            converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=signatures)
            converted: bytes = converter.convert()
        except (ConverterError, ValueError, RuntimeError) as exc:
            raise LiteError(f"it cannot be converted: {str(exc).strip().splitlines()[0]}") from exc
    return converted
