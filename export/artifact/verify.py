"""Reload a version from disk with the runtimes that serve it, and replay its golden examples."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serving.contract.card import CARD_SIGNATURE, ModelCard, card_from_json, read_card
from serving.contract.errors import SightlineError, VerificationFailed
from serving.contract.golden import GoldenExamples, Proof, proof_of, read_golden
from serving.contract.image import decode_image
from serving.contract.image_limits import ImageLimits
from serving.contract.manifest import MANIFEST_FILE, check_files
from serving.contract.versions import TFLITE_FILE
from serving.runtimes.opening import LITERT, TENSORFLOW, answered_cards, open_runtime
from serving.runtimes.runtime import NotFit, Runtime, replay, run_signature
from serving.runtimes.status import CallError
from serving.runtimes.tensorflow_start import native_stderr_held_back, start_tensorflow


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a verification.

    stage: the last one that was reached: files, load, card, preprocessing, model, tflite, or done.
    n: golden examples that were replayed. max_abs_difference: of their probabilities from Keras's; 0 where the model
    did not run. unproven: why nobody can tell whether the files are those that were exported, "" where they are.
    """

    ok: bool
    stage: str
    n: int
    max_abs_difference: float
    detail: str
    unproven: str = ""


def verify(version_dir: Path) -> Verdict:
    """Replay the golden examples of a version on disk. A version that fails is a verdict, not an exception."""
    stage, n, difference = "files", 0, 0.0
    try:
        has_manifest = check_files(version_dir)
        card, golden = read_card(version_dir), read_golden(version_dir)
        n, proof = len(golden), proof_of(card, golden)
        stage = "load"
        runtime = open_saved_model(version_dir)
        try:
            stage = "card"
            _check_card(runtime, card)
            stage = "preprocessing"
            _check_tensors(card, golden)
            stage = "model"
            difference = _check_answers(runtime, proof)
        finally:
            runtime.close()
        if (version_dir / TFLITE_FILE).exists():
            stage = "tflite"
            difference = max(difference, replay_tflite(version_dir, proof, card))
        unproven = "" if has_manifest else f"there is no {MANIFEST_FILE} to compare the files with"
        return Verdict(True, "done", n, difference, f"{n} golden examples agree", unproven)
    except _Difference as exc:
        return Verdict(False, stage, n, exc.difference, str(exc))
    except (SightlineError, CallError, NotFit, OSError) as exc:
        return Verdict(False, stage, n, difference, str(exc))


def require_verified(version_dir: Path) -> Verdict:
    """Verify a version; raise VerificationFailed unless everything agrees."""
    verdict = verify(version_dir)
    if not verdict.ok:
        raise VerificationFailed(
            f"The version failed its verification at stage {verdict.stage}: {verdict.detail.rstrip('.')}.",
            hint="Nothing was published.",
        )
    return verdict


def open_saved_model(version_dir: Path) -> Runtime:
    """Load the SavedModel of a version as the model server does. Raises CallError."""
    start_tensorflow()  # with Keras, which the rest of this process may need
    with native_stderr_held_back():
        return open_runtime(version_dir, TENSORFLOW)


def replay_tflite(version_dir: Path, proof: Proof, card: ModelCard | None = None) -> float:
    """Run the proof with model.tflite as the model server does. Returns the largest difference of a number.

    card: what the file has to give as its own; None: it has none. Raises NotFit where LiteRT cannot run the file, or a
    number differs by more than `proof.atol`; CallError, SightlineError where its card is another.
    """
    start_tensorflow()  # sets the log level that LiteRT shares
    with native_stderr_held_back():
        runtime = open_runtime(version_dir, LITERT)
        if card is not None:
            _check_card(runtime, card)
        difference = replay(runtime, proof)
        runtime.close()
    if not difference <= proof.atol:
        raise NotFit(f"{TFLITE_FILE} differs by {difference:.2g} from the exported model; {proof.atol:.2g} is allowed")
    return difference


class _Difference(Exception):
    """The version differs from what was exported. difference: of the probabilities, 0 where they are not known."""

    def __init__(self, text: str, difference: float = 0.0) -> None:
        super().__init__(text)
        self.difference = difference


def _check_card(runtime: Runtime, card: ModelCard) -> None:
    answers = answered_cards(runtime)
    if len(answers) != 2 or any(card_from_json(answer) != card for answer in answers):
        raise _Difference(f"the card of the signature {CARD_SIGNATURE} is not the one in the file")


def _check_tensors(card: ModelCard, golden: GoldenExamples) -> None:
    for index, (picture, expected) in enumerate(zip(golden.pictures, golden.tensors, strict=True)):
        tensor = card.preprocessing.apply(decode_image(picture, ImageLimits()))
        if tensor.dtype != expected.dtype or not np.array_equal(tensor, expected):
            raise _Difference(f"image {index} gives another tensor than when the model was exported")


def _check_answers(runtime: Runtime, proof: Proof) -> float:
    answers = run_signature(runtime, proof.signature, {proof.input: proof.given}, proof.output)
    if answers.shape != proof.expected.shape:
        raise _Difference(f"the model answers {answers.shape}; Keras answered {proof.expected.shape}")
    difference = proof.difference(answers)
    if not difference <= proof.atol:
        raise _Difference(f"the probabilities differ by {difference:.2g}; {proof.atol:.2g} is allowed", difference)
    return difference
