"""The meaning of a model's output: read from its last activation, or said. Example images never decide it."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np

from export.adoption.loaded_model import LoadedModel
from serving.contract.errors import InvalidData, UsageError

Output = Literal["probabilities", "logits", "sigmoid", "independent"]
OUTPUTS: tuple[Output, ...] = get_args(Output)
MEANINGS = {
    "probabilities": "a number per class, which sum to one",
    "logits": "numbers without a last activation",
    "sigmoid": "one number: the probability of the second of two classes",
    "independent": "a probability per class, of which several may be high; not served yet",
}
SUM_TOLERANCE = 1e-3  # deviation from one in the sum of an image's probabilities


def output_of(loaded: LoadedModel, said: Output | None, classes: int) -> tuple[Output, str]:
    """Settle what the output is, and who says so. classes: numbers per image.

    Raises UsageError where it is not known, or where several labels may hold, which cannot be served yet.
    """
    output, origin = (said, f"--output {said}") if said else read_output(loaded, classes)
    if output is None:
        raise UsageError(
            f"What the model's output means is not known: {origin}.",
            hint=f"Say it: --output {'; '.join(f'{name} ({MEANINGS[name]})' for name in OUTPUTS)}.",
        )
    if output == "independent" or (output == "sigmoid" and classes > 1):
        raise UsageError(
            f"Several labels of this model may hold for one image ({classes} independent probabilities: {origin}). "
            "Sightline serves models of which exactly one label holds.",
            hint="Where exactly one holds, end the model in a softmax. One model with a sigmoid per label can be "
            "served for each label.",
        )
    if output == "probabilities" and classes == 1:
        raise UsageError(
            f"One number per image cannot be the probabilities of several classes ({origin}).",
            hint="Say --output sigmoid if it is the probability of the second of two classes, or --output logits.",
        )
    return output, origin


def read_output(loaded: LoadedModel, classes: int) -> tuple[Output | None, str]:
    """Read the output from the last activation, and that of a linear one from the loss that the file names."""
    is_one, is_binary = classes == 1, "binary" in loaded.loss
    match loaded.activation:
        case "softmax":
            return "probabilities", "the model ends in a softmax"
        case "sigmoid":
            return ("sigmoid", "the model ends in a sigmoid") if is_one else ("independent", "it ends in sigmoids")
        case "linear" if is_binary:
            return ("logits" if is_one else "independent"), f"no last activation, and the loss is {loaded.loss}"
        case "linear" if not is_one:
            return "logits", "the model has no last activation"
        case "linear":
            return None, "it is one number without an activation, and the file names no loss that would tell"
    return None, "its last activation cannot be read"


def finisher(output: Output, classes: int) -> Callable[[Any], Any]:
    """The conversion of the model's output to probabilities (n, k): one number becomes two classes."""
    import tensorflow as tf

    if output == "probabilities":
        return lambda y: y
    if classes > 1:
        softmax: Callable[[Any], Any] = tf.nn.softmax
        return softmax
    second = tf.sigmoid if output == "logits" else (lambda y: y)
    return lambda y: tf.concat([1 - second(y), second(y)], axis=1)


def require_rows(answers: Any) -> int:
    """Return the numbers per image. Raises InvalidData for an output that is not a row of finite numbers per image."""
    if answers.ndim != 2 or not answers.shape[1]:
        raise InvalidData(
            f"The model's output for {len(answers)} images has the shape {answers.shape}; a classifier's is (n, k).",
            hint="A model with several outputs may have the right one: --output-name.",
        )
    if not np.isfinite(answers).all():
        raise InvalidData("The model's output for the example images is not finite (NaN or infinite).")
    return int(answers.shape[1])


def require_probabilities(answers: Any, origin: str) -> None:
    """Raise InvalidData where the answers contradict what the output is said to be. answers: finished, (n, k)."""
    sums = answers.sum(axis=1)
    if (answers < 0).any() or (answers > 1).any() or not np.allclose(sums, 1, atol=SUM_TOLERANCE):
        raise InvalidData(
            f"The model's output was taken for probabilities ({origin}), but its numbers for the example images are "
            f"{answers.min():.3g} to {answers.max():.3g} and sum to {sums.min():.3g} to {sums.max():.3g}.",
            hint="Say --output logits if they come before the softmax.",
        )
