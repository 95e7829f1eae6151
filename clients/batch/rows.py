"""One row of results, the same for every format."""

from dataclasses import dataclass

OK, FAILED = "ok", "failed"

Top = tuple[str, float] | tuple[str, float, str]  # label and score; the class's id where the model's classes have ids


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one input.

    status: `ok` or `failed`; a failed row has error_code and error instead of label and score. label_id: the class's,
    such as ImageNet's `n02112350`, or "". top: best first. ms: milliseconds of the request in which the picture
    travelled, with its neighbours. truth: the source's, "" where it has none. previous_label: with --changed-only, the
    label before this run, or "".
    """

    path: str
    status: str
    label: str = ""
    label_id: str = ""
    score: float | None = None
    top: tuple[Top, ...] = ()
    model: str = ""
    version: int | None = None
    ms: float | None = None
    sha256: str = ""
    error_code: str = ""
    error: str = ""
    truth: str = ""
    previous_label: str = ""
