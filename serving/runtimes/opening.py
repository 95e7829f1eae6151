"""Open a version on disk: the one way in, for the model server, for the export's verification, for measurements."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serving.contract.errors import SightlineError
from serving.contract.golden import Proof, read_proof
from serving.contract.machine import usable_cpus
from serving.contract.versions import SERVE_TAG, TFLITE_FILE
from serving.runtimes.runtime import NotFit, Runtime, replay
from serving.runtimes.status import CallError
from serving.runtimes.tensorflow_start import start_tensorflow

RuntimeName = Literal["LiteRT", "TensorFlow"]
LITERT: RuntimeName = "LiteRT"
TENSORFLOW: RuntimeName = "TensorFlow"


@dataclass(frozen=True, slots=True)
class OpenedVersion:
    """A version, ready to run.

    name: the runtime that runs it. difference: the farthest that an answer to the golden examples was from the one
    that the export got; None where they were not replayed. why_not_litert: the reason that LiteRT does not run it, ""
    where it does, where it was not wanted, and where the version has no model.tflite.
    """

    runtime: Runtime
    name: RuntimeName
    difference: float | None = None
    why_not_litert: str = ""


def open_version(
    directory: Path,
    runtimes: Sequence[RuntimeName] = (LITERT, TENSORFLOW),
    *,
    tags: Sequence[str] = (SERVE_TAG,),
    threads: int = 0,
    proof: Proof | None = None,
) -> OpenedVersion:
    """Open the version in `directory` with the first of `runtimes` that can run it.

    threads: of one run; 0: as many as there are CPUs. LiteRT runs as many side by side as the CPUs allow.
    proof: what LiteRT has to reproduce; None: the proof that lies in the version (its golden examples).

    LiteRT fits where there is a model.tflite with the SavedModel's signatures that reproduces the proof on this
    machine. Where it does not fit and TensorFlow may run the version, the reason is in `why_not_litert`; where LiteRT
    is all that is allowed, raises NotFit with the reason. Raises CallError where TensorFlow cannot load the SavedModel.

        opened = open_version(Path("models/digits/3"))
        run_signature(opened.runtime, "serving_default", {"image": batch}, "probabilities")
    """
    reason = ""
    for name in runtimes:
        if name == TENSORFLOW:
            return OpenedVersion(_open_saved_model(directory, tags, threads), TENSORFLOW, None, reason)
        try:
            runtime, difference = _open_tflite(directory, tags, threads, proof)
        except NotFit as exc:
            if TENSORFLOW not in runtimes:
                raise
            reason = str(exc) if (directory / TFLITE_FILE).exists() else ""
        else:
            return OpenedVersion(runtime, LITERT, difference)
    raise ValueError("no runtime is allowed to run the version")


def _open_saved_model(directory: Path, tags: Sequence[str], threads: int) -> Runtime:
    start_tensorflow(keras=False)
    from serving.runtimes.tensorflow_session import TensorFlowRuntime

    return TensorFlowRuntime(directory, tags, threads)


def _open_tflite(directory: Path, tags: Sequence[str], threads: int, proof: Proof | None) -> tuple[Runtime, float]:
    """The runtime, and how far its answers were from the proof's. Raises NotFit."""
    if tuple(tags) != (SERVE_TAG,):
        raise NotFit(f"{TFLITE_FILE} holds the graph with the tag {SERVE_TAG}; wanted is {','.join(tags)}")
    if not (directory / TFLITE_FILE).exists():
        raise NotFit(f"there is no {TFLITE_FILE}")
    from serving.runtimes.litert import LiteRtRuntime

    cpus = usable_cpus()
    threads = threads or cpus
    runtime = LiteRtRuntime(directory, threads=threads, runs=max(1, cpus // threads))
    try:
        proof = proof or read_proof(directory)
        difference = replay(runtime, proof)
    except (SightlineError, CallError) as exc:
        raise NotFit(f"the golden examples cannot be replayed with {TFLITE_FILE}: {exc}") from exc
    if not difference <= proof.atol:
        raise NotFit(f"{TFLITE_FILE} differs by {difference:.2g} from the exported model; {proof.atol:.2g} is allowed")
    return runtime, difference
