"""`LoadedModel`: a model of another program as it was loaded, and what its file says about it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from serving.contract.errors import InvalidData, UsageError

Activation = Literal["softmax", "sigmoid", "linear"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model as it was loaded.

    call: from its own input, cast to float32, to its output (n, k). shape: of its input without the batch; None for a
    side of any length, and as a whole where not even the rank is known. dtype: of its input, as numpy names it.
    activation: the last step of its output; None where it cannot be read. loss: that it was compiled with, "" where
    none is stored. core: the Keras model, from which kept and summary come; None for a SavedModel.
    """

    call: Callable[[Any], Any]
    shape: tuple[int | None, ...] | None
    dtype: str
    activation: Activation | None
    parameters: int
    loss: str = ""
    signature: tuple[str, str, str] | None = None  # of a SavedModel: its signature, input, output
    kept: tuple[Any, ...] = ()
    summary: str = ""
    core: Any = None

    @property
    def takes_integers(self) -> bool:
        """Tell whether the input is pixels as they are: then the model does all scaling itself."""
        return "int" in self.dtype


def the_output(names: Sequence[str], wanted: str | None) -> str:
    """Choose the model's output. Raises UsageError where there are several and none, or an unknown one, was named."""
    if wanted in names:
        return str(wanted)
    if wanted is None and len(names) == 1:
        return names[0]
    detail = f"The model has no output {wanted}." if wanted else f"The model has {len(names)} outputs."
    raise UsageError(detail, hint=f"Choose one with --output-name: {', '.join(names)}.")


def require_one_input(names: Sequence[str]) -> str:
    """Return the name of the only input. Raises InvalidData where there are several."""
    if len(names) != 1:
        raise InvalidData(
            f"The model has {len(names)} inputs ({', '.join(names)}); only a model whose one input is an image can be "
            "served.",
            hint="Give the other inputs fixed values in a model around it, and adopt that.",
        )
    return names[0]


def require_any_batch(size: int | None) -> None:
    """Raise InvalidData for a model whose batch size is fixed: the service sends as many images as it has."""
    if size is not None:
        raise InvalidData(
            f"The model takes exactly {size} image{'s' if size > 1 else ''} at a time.",
            hint="Save it with an input whose first dimension is None.",
        )
