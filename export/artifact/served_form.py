"""Convert a trained model to the form that is served: batch normalisation folded, and bfloat16 where asked for.

bfloat16 keeps eight significant bits where float32 keeps 24, so probabilities change. It is therefore chosen at export,
refused where the golden examples change too much, and evaluated on the test split beside float32.
"""

from dataclasses import replace

import numpy as np

from export.artifact import bfloat16
from export.artifact.batch_norm import CannotCloneError, fold_batch_norm
from export.progress import say
from export.trained_model import Evaluated, Servable, TrainedModel, with_core
from export.training.evaluation import metrics_of, predict
from serving.contract.errors import UsageError, VerificationFailed
from serving.contract.golden import GoldenExamples

FLOAT32, BFLOAT16 = PRECISIONS = ("float32", bfloat16.NAME)
# Largest allowed difference of a probability from Keras's in float32. float32: kernels differ by a tenth of it.
# bfloat16: MobileNetV2 differs by at most 0.05 (measured), a twentieth of the range.
ATOL = {FLOAT32: 1e-5, BFLOAT16: 0.1}
COMPARED = ("test_accuracy", "test_loss")  # stored for float32 beside those of bfloat16


def to_served_form(trained: TrainedModel, golden: GoldenExamples, precision: str) -> TrainedModel:
    """Fold the batch normalisations of a model and convert it to `precision`.

    golden: Keras's answers in float32. Raises UsageError where the model cannot be converted, VerificationFailed where
    a golden example changes its label or a probability by more than ATOL.
    """
    if trained.servable.core is None:
        if precision != FLOAT32:
            raise UsageError(
                f"--precision {precision} is for Keras models; this model is a finished graph.",
                hint="Leave it out, or choose the precision when the Keras model is exported.",
            )
        return trained
    if precision == BFLOAT16:
        return _evaluated_again(trained, _in_bfloat16(trained.servable, golden))
    return replace(trained, servable=_folded(trained.servable, golden))


def _folded(servable: Servable, golden: GoldenExamples) -> Servable:
    """Fold batch normalisations; return the servable unchanged where that is impossible or would change answers."""
    try:
        folded = with_core(servable, fold_batch_norm(servable.core))
    except CannotCloneError as exc:
        say(f"batch normalisation is not folded: {exc}")
        return servable
    difference = float(np.abs(folded.probabilities(golden.tensors) - golden.probabilities).max())
    if difference <= ATOL[FLOAT32] / 2:
        return folded
    say(f"batch normalisation is not folded: probabilities would change by {difference:.1e}")
    return servable


def _in_bfloat16(servable: Servable, golden: GoldenExamples) -> Servable:
    """Convert to bfloat16 and compare with float32. Raises UsageError, VerificationFailed."""
    try:
        converted = with_core(servable, bfloat16.convert_to_bfloat16(fold_batch_norm(servable.core)))
    except CannotCloneError as exc:
        raise UsageError(
            f"--precision {BFLOAT16} cannot convert this model: {exc}.",
            hint="Build the model with keras.Sequential or keras.Model(inputs, outputs), or leave --precision out.",
        ) from exc
    answers = converted.probabilities(golden.tensors)
    difference = float(np.abs(answers - golden.probabilities).max())
    others = int((answers.argmax(axis=1) != golden.probabilities.argmax(axis=1)).sum())
    if others or not difference <= ATOL[BFLOAT16]:
        raise VerificationFailed(
            f"In {BFLOAT16}, {others} of {len(golden)} golden examples get another label (0 allowed), and a "
            f"probability changes by {difference:.2g} ({ATOL[BFLOAT16]:.2g} allowed). Nothing was published.",
            hint="Leave --precision out: this model needs float32.",
        )
    say(f"{BFLOAT16}: probabilities of the golden examples change by at most {difference:.1e}")
    if not bfloat16.has_bfloat16():
        say(f"this machine has no {BFLOAT16} instructions: on it, the version is slower than in {FLOAT32}")
    return converted


def _evaluated_again(trained: TrainedModel, servable: Servable) -> TrainedModel:
    """Evaluate the served form on the test split and keep float32's metrics beside the new ones."""
    if not trained.test:
        return replace(trained, servable=servable)
    split = trained.test.split
    test = Evaluated(split, predict(servable, split))
    metrics = metrics_of(test.probabilities, split.labels)
    beside = {f"{FLOAT32}_{name}": trained.metrics[name] for name in COMPARED}
    was, now = trained.metrics["test_accuracy"], metrics["test_accuracy"]
    say(f"test accuracy {now:.2%} in {BFLOAT16}, {was:.2%} in {FLOAT32}, on {len(split):,} images")
    return replace(trained, servable=servable, test=test, metrics={**trained.metrics, **metrics, **beside})
