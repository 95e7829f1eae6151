"""A version in memory, whatever runs it, and the replay that proves it right."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from serving.contract.golden import Proof
from serving.runtimes.status import failed_precondition, invalid_argument
from serving.runtimes.tensors import Array


class NotFit(Exception):
    """A runtime cannot run a version, or does not give the answers that the export got; the message says why."""


class Runtime(Protocol):
    """A loaded version. signatures: by name, as the SavedModel declares them (SignatureDef messages)."""

    signatures: Mapping[str, Any]

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], deadline: float | None = None) -> list[Array]:
        """Run the graph. feeds: arrays by tensor name. Returns an array for each tensor name in `fetches`.

        deadline: of time.monotonic; None waits without limit. Raises CallError.
        """

    def close(self) -> None:
        """Free the memory. No call may be running."""


def run_signature(runtime: Runtime, signature: str, inputs: Mapping[str, Array], output: str) -> Array:
    """Compute one output of a signature. inputs, output: by the signature's names, not the graph's.

    Raises CallError, with FAILED_PRECONDITION where the version has no such signature, and INVALID_ARGUMENT where the
    signature has no such input or output.
    """
    declared = runtime.signatures.get(signature)
    if declared is None:
        raise failed_precondition(f'Serving signature key "{signature}" not found.')
    missing = [name for name in inputs if name not in declared.inputs] + [output] * (output not in declared.outputs)
    if missing:
        raise invalid_argument(f"signature {signature} has no {', '.join(missing)}")
    feeds = {declared.inputs[name].name: array for name, array in inputs.items()}
    (answer,) = runtime.run(feeds, [declared.outputs[output].name])
    return answer


def replay(runtime: Runtime, proof: Proof, seconds: float = math.inf) -> float:
    """Replay a proof; return the largest difference of any number from the export's answer.

    seconds: begin no run that would last beyond them; the first example is always replayed.
    Infinity where the answers have another shape or are not finite. Raises CallError.
    """
    started, at, size, largest = time.monotonic(), 0, 1, 0.0
    while size:
        part = proof.part(at, at + size)
        began = time.monotonic()
        answers = run_signature(runtime, part.signature, {part.input: part.given}, part.output)
        now = time.monotonic()
        difference = part.difference(answers)
        largest = max(largest, difference) if np.isfinite(difference) else math.inf
        at += size
        fitting = (seconds - (now - started)) / max(1e-6, (now - began) / size)
        size = int(min(len(proof) - at, max(0.0, fitting)))
    return largest
