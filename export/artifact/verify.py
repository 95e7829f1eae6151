"""Reload a version from disk as TensorFlow Serving does, and replay its golden examples."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.artifact.tflite import LiteError, lite_answers
from serving.contract.card import CARD_INPUT, CARD_OUTPUT, CARD_SIGNATURE, ModelCard, card_from_json, read_card
from serving.contract.errors import SightlineError, VerificationFailed
from serving.contract.golden import GoldenExamples, Proof, proof_of, read_golden
from serving.contract.image import decode_image
from serving.contract.image_limits import ImageLimits
from serving.contract.versions import TFLITE_FILE
from serving.runtimes.tensorflow_start import native_stderr_held_back, start_tensorflow


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verifying found. stage: the last one that was reached: files, load, card, preprocessing,
    model, tflite, or done.

    max_abs_difference: of the probabilities, from those that Keras gave; 0 when the model was not asked.
    n: golden examples that were replayed.
    """

    ok: bool
    stage: str
    n: int
    max_abs_difference: float
    detail: str


def verify(version_dir: Path) -> Verdict:
    """Replay the golden examples of a version on disk. Never raises for what it finds wrong: the verdict says it."""
    stage, n, difference = "files", 0, 0.0
    try:
        card, golden = read_card(version_dir), read_golden(version_dir)
        n = len(golden)
        stage = "load"
        with _Loaded(version_dir) as loaded:
            stage = "card"
            _check_card(loaded, card)
            stage = "preprocessing"
            _check_tensors(card, golden)
            stage = "model"
            proof = proof_of(card, golden)
            answers = loaded.run(proof.signature, {proof.input: proof.given}, proof.output)
        difference = _check_answers(proof, answers)
        if (version_dir / TFLITE_FILE).exists():
            stage = "tflite"
            difference = max(difference, _check_answers(proof, lite_answers(version_dir, proof)))
        return Verdict(True, "done", n, difference, f"{n} golden examples agree")
    except _Difference as exc:
        return Verdict(False, stage, n, exc.difference, str(exc))
    except (SightlineError, LiteError) as exc:
        return Verdict(False, stage, n, difference, str(exc))


def require_verified(version_dir: Path) -> Verdict:
    """The same, raising VerificationFailed unless everything agrees."""
    verdict = verify(version_dir)
    if not verdict.ok:
        raise VerificationFailed(
            f"verifying the version failed at stage {verdict.stage}: {verdict.detail}", hint="Nothing was published."
        )
    return verdict


class _Difference(Exception):
    """The version does not do what it should; the verdict carries the text."""

    def __init__(self, text: str, difference: float = 0.0) -> None:
        super().__init__(text)
        self.difference = difference


class _Loaded:
    """A SavedModel in a v1 session, which is how TensorFlow Serving runs it."""

    def __init__(self, version_dir: Path) -> None:
        self._dir = version_dir

    def __enter__(self) -> "_Loaded":
        tf = start_tensorflow()
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        try:
            with graph.as_default(), native_stderr_held_back():
                self._meta = tf.compat.v1.saved_model.load(self._session, ["serve"], str(self._dir))
        except (tf.errors.OpError, OSError, ValueError, RuntimeError) as exc:
            self._session.close()
            raise _Difference(f"the SavedModel cannot be loaded: {exc}") from exc
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def run(self, signature: str, inputs: dict[str, npt.NDArray[Any]], output: str) -> npt.NDArray[Any]:
        """One output of a signature. Names are those of the signature, not of the graph."""
        import tensorflow as tf

        try:
            definition = self._meta.signature_def[signature]
            feed = {definition.inputs[name].name: values for name, values in inputs.items()}
            answer: npt.NDArray[Any] = self._session.run(definition.outputs[output].name, feed)
        except (tf.errors.OpError, KeyError, ValueError) as exc:
            raise _Difference(f"signature {signature} cannot be run: {exc}") from exc
        return answer


def _check_card(loaded: _Loaded, card: ModelCard) -> None:
    answers = loaded.run(CARD_SIGNATURE, {CARD_INPUT: np.zeros(2, np.int32)}, CARD_OUTPUT)
    if len(answers) != 2 or any(card_from_json(answer) != card for answer in answers):
        raise _Difference("the card that the signature gives is not the one in the file")


def _check_tensors(card: ModelCard, golden: GoldenExamples) -> None:
    for index, (picture, expected) in enumerate(zip(golden.pictures, golden.tensors, strict=True)):
        tensor = card.preprocessing.apply(decode_image(picture, ImageLimits()))
        if tensor.dtype != expected.dtype or not np.array_equal(tensor, expected):
            raise _Difference(f"picture {index} gives another tensor than it did when the model was exported")


def _check_answers(proof: Proof, answers: npt.NDArray[Any]) -> float:
    if answers.shape != proof.expected.shape:
        raise _Difference(f"the model answers {answers.shape}; Keras answered {proof.expected.shape}")
    difference = proof.difference(answers)
    if not difference <= proof.atol:
        raise _Difference(f"the probabilities differ by {difference:.2g}; {proof.atol:.2g} is allowed", difference)
    return difference
