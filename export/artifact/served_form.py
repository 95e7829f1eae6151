"""A model as it was made to the one that is served: the same answers sooner; or nearly the same, where asked.

Eight bits of a number are kept in bfloat16 where float32 keeps 24: answers move. So it is chosen at export, refused
where the golden examples move too far, and judged on the test split beside float32.
"""

from dataclasses import replace

import numpy as np

from export.artifact import bfloat16
from export.artifact.batch_norm import CannotCloneError, fold_batch_norm
from export.made import Judged, Made, Servable, with_core
from export.progress import say
from export.training.evaluation import metrics_of, predict
from serving.contract.errors import UsageError, VerificationFailed
from serving.contract.golden import GoldenExamples

FLOAT32, BFLOAT16 = PRECISIONS = ("float32", bfloat16.NAME)
# How far a probability may be from that of Keras's float32. float32: what issue 2 allows between HTTP and Keras; its
# kernels differ by a tenth of it. bfloat16: MobileNetV2 moves by 0.05 at most (measured), a twentieth of its scale.
ATOL = {FLOAT32: 1e-5, BFLOAT16: 0.1}
COMPARED = ("test_accuracy", "test_loss")  # of float32, beside those of bfloat16


def served_form(made: Made, golden: GoldenExamples, precision: str) -> Made:
    """What is published of a model: its batch normalisations folded, in the precision that was asked for.

    golden: what Keras says in float32. Raises UsageError where the precision cannot be had, VerificationFailed where an
    answer moves by more than its ATOL, or to another label.
    """
    if made.servable.core is None:
        if precision != FLOAT32:
            raise UsageError(
                f"--precision {precision} is for Keras models; this one is a graph that is ready to be served",
                hint="Leave it out, or choose the precision where the Keras model is exported.",
            )
        return made
    if precision == BFLOAT16:
        return _judged_again(made, _lowered(made.servable, golden))
    return replace(made, servable=_folded(made.servable, golden))


def _folded(servable: Servable, golden: GoldenExamples) -> Servable:
    """The servable with its batch normalisations folded; as it is, where that cannot be or answers would move."""
    try:
        folded = with_core(servable, fold_batch_norm(servable.core))
    except CannotCloneError as exc:
        say(f"batch normalisation is not folded: {exc}")
        return servable
    moved = float(np.abs(folded.probabilities(golden.tensors) - golden.probabilities).max())
    if moved <= ATOL[FLOAT32] / 2:
        return folded
    say(f"batch normalisation is not folded: answers would move by {moved:.1e}")
    return servable


def _lowered(servable: Servable, golden: GoldenExamples) -> Servable:
    """The servable in bfloat16, if it answers nearly as it did. Raises UsageError, VerificationFailed."""
    try:
        lowered = with_core(servable, bfloat16.in_bfloat16(fold_batch_norm(servable.core)))
    except CannotCloneError as exc:
        raise UsageError(
            f"--precision {BFLOAT16}: {exc}",
            hint="Build the model with keras.Sequential or keras.Model(inputs, outputs), or leave --precision out.",
        ) from exc
    answers = lowered.probabilities(golden.tensors)
    moved = float(np.abs(answers - golden.probabilities).max())
    others = int((answers.argmax(axis=1) != golden.probabilities.argmax(axis=1)).sum())
    if others or not moved <= ATOL[BFLOAT16]:
        raise VerificationFailed(
            f"in {BFLOAT16} {others} of {len(golden)} golden examples get another label, and a probability moves by "
            f"{moved:.2g}; none and {ATOL[BFLOAT16]:.2g} are allowed",
            hint="Leave --precision out: this model needs float32. Nothing was published.",
        )
    say(f"{BFLOAT16}: the probabilities of the golden examples move by at most {moved:.1e}")
    if not bfloat16.has_bfloat16():
        say(f"this machine has no instructions for {BFLOAT16}: here the version answers later than one of {FLOAT32}")
    return lowered


def _judged_again(made: Made, servable: Servable) -> Made:
    """The numbers of the test split for what is served, and float32's beside them."""
    if not made.test:
        return replace(made, servable=servable)
    split = made.test.split
    test = Judged(split, predict(servable, split))
    metrics = metrics_of(test.probabilities, split.labels)
    beside = {f"{FLOAT32}_{name}": made.metrics[name] for name in COMPARED}
    was, now = made.metrics["test_accuracy"], metrics["test_accuracy"]
    say(f"test accuracy {now:.2%} in {BFLOAT16}, {was:.2%} in {FLOAT32}, on {len(split):,} pictures")
    return replace(made, servable=servable, test=test, metrics={**made.metrics, **metrics, **beside})
