"""Open a version on disk and prove it: the one way in, for the model server and for measurements.

A version is opened only where its files are those of its manifest, its cards agree, and the runtime that will answer
repeats, on this machine, the answers that the export got.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from serving.contract.card import CARD_FILE, CARD_INPUT, CARD_OUTPUT, CARD_SIGNATURE, card_from_json, read_card
from serving.contract.errors import SightlineError
from serving.contract.golden import Proof, has_proof, read_proof
from serving.contract.machine import usable_cpus
from serving.contract.manifest import MANIFEST_FILE, check_files
from serving.contract.versions import GOLDEN_DIR, SERVE_TAG, TFLITE_FILE
from serving.runtimes.runtime import NotFit, Runtime, replay, run_signature
from serving.runtimes.status import CallError, data_loss
from serving.runtimes.tensorflow_start import start_tensorflow

RuntimeName = Literal["LiteRT", "TensorFlow"]
LITERT: RuntimeName = "LiteRT"
TENSORFLOW: RuntimeName = "TensorFlow"
PROOF_SECONDS = 5.0  # of replaying; a model that runs for long replays fewer examples, and at least one


@dataclass(frozen=True, slots=True)
class OpenedVersion:
    """A version, ready to run.

    name: the runtime that runs it. difference: the farthest that an answer to the golden examples was from the one
    that the export got; None where there are none. unproven: the reason that nobody can tell whether it is the model
    that was exported, "" where it is. why_not_litert: the reason that LiteRT does not run it, "" where it does, where
    it was not wanted, and where the version has no model.tflite.
    """

    runtime: Runtime
    name: RuntimeName
    difference: float | None = None
    unproven: str = ""
    why_not_litert: str = ""


def open_version(
    directory: Path,
    runtimes: Sequence[RuntimeName] = (LITERT, TENSORFLOW),
    *,
    tags: Sequence[str] = (SERVE_TAG,),
    threads: int = 0,
) -> OpenedVersion:
    """Open the version in `directory` with the first of `runtimes` that can run it, and prove it.

    threads: of one run; 0: as many as there are CPUs. LiteRT runs as many side by side as the CPUs allow.

    LiteRT fits where there is a model.tflite with the SavedModel's signatures that repeats the golden examples. Where
    it does not fit and TensorFlow may run the version, the reason is in `why_not_litert`; where LiteRT is all that is
    allowed, raises NotFit with the reason. Raises CallError where TensorFlow cannot load the SavedModel, or the version
    is not the one that was exported: other files than the manifest lists, cards that differ, other answers. Raises
    OSError where a file cannot be read.

        opened = open_version(Path("models/digits/3"))
        run_signature(opened.runtime, "serving_default", {"image": batch}, "probabilities")
    """
    try:
        has_manifest = check_files(directory)
        proof = read_proof(directory) if has_proof(directory) else None
    except SightlineError as exc:
        raise data_loss(str(exc)) from exc
    reason = ""
    for name in runtimes:
        try:
            runtime = open_runtime(directory, name, tags=tags, threads=threads)
            try:
                _require_one_card(runtime, directory)
                difference = None if proof is None else require_answers(runtime, proof, name)
            except BaseException:
                runtime.close()
                raise
            return OpenedVersion(runtime, name, difference, _unproven(has_manifest, proof), reason)
        except NotFit as exc:
            if name == TENSORFLOW:
                raise data_loss(str(exc)) from exc
            if TENSORFLOW not in runtimes:
                raise
            reason = str(exc) if (directory / TFLITE_FILE).exists() else ""
    raise ValueError("no runtime is allowed to run the version")


def open_runtime(
    directory: Path, name: RuntimeName, *, tags: Sequence[str] = (SERVE_TAG,), threads: int = 0
) -> Runtime:
    """Open a version with one runtime, and prove nothing. Raises NotFit, CallError."""
    return (_open_saved_model if name == TENSORFLOW else _open_tflite)(directory, tags, threads)


def require_answers(runtime: Runtime, proof: Proof, name: RuntimeName) -> float:
    """Replay the proof; return the largest difference. Raises NotFit where it is more than the proof allows."""
    try:
        difference = replay(runtime, proof, PROOF_SECONDS)
    except CallError as exc:
        raise NotFit(f"the golden examples cannot be replayed on {name}: {exc.message}") from exc
    if not difference <= proof.atol:
        raise NotFit(
            f"the answers on {name} differ by {difference:.2g} from the exported model's; {proof.atol:.2g} is allowed"
        )
    return difference


def answered_cards(runtime: Runtime) -> list[Any]:
    """Ask a version for its card, twice in one batch. Raises CallError where it has no such signature."""
    return list(run_signature(runtime, CARD_SIGNATURE, {CARD_INPUT: np.zeros(2, np.int32)}, CARD_OUTPUT))


def _unproven(has_manifest: bool, proof: Proof | None) -> str:
    if not has_manifest:
        return f"It has no {MANIFEST_FILE}: its files cannot be compared with those that were exported."
    return "" if proof is not None else f"It has no golden examples ({GOLDEN_DIR}) to replay."


def _require_one_card(runtime: Runtime, directory: Path) -> None:
    """Compare the file's card with the one that the runtime answers; LiteRT has compared its own with the graph's."""
    if not (directory / CARD_FILE).exists():
        return
    try:
        card = read_card(directory)
        if any(card_from_json(answer) != card for answer in answered_cards(runtime)):
            raise data_loss(f"the card of the signature {CARD_SIGNATURE} is not the one in {CARD_FILE}")
    except SightlineError as exc:
        raise data_loss(str(exc)) from exc


def _open_saved_model(directory: Path, tags: Sequence[str], threads: int) -> Runtime:
    start_tensorflow(keras=False)
    from serving.runtimes.tensorflow_session import TensorFlowRuntime

    return TensorFlowRuntime(directory, tags, threads)


def _open_tflite(directory: Path, tags: Sequence[str], threads: int) -> Runtime:
    if tuple(tags) != (SERVE_TAG,):
        raise NotFit(f"{TFLITE_FILE} holds the graph with the tag {SERVE_TAG}; wanted is {','.join(tags)}")
    if not (directory / TFLITE_FILE).exists():
        raise NotFit(f"there is no {TFLITE_FILE}")
    from serving.runtimes.litert import LiteRtRuntime

    cpus = usable_cpus()
    threads = threads or cpus
    return LiteRtRuntime(directory, threads=threads, runs=max(1, cpus // threads))
