"""One row of results, the same for every format."""

from dataclasses import dataclass

OK, FAILED = "ok", "failed"


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one input.

    status: `ok` or `failed`; a failed row has error_code and error instead of label and score. top: (label, score),
    best first. ms: milliseconds of the request in which the picture travelled, with its neighbours. truth: the
    source's, "" where it has none. previous_label: with --changed-only, the label before this run, or "".
    """

    path: str
    status: str
    label: str = ""
    score: float | None = None
    top: tuple[tuple[str, float], ...] = ()
    model: str = ""
    version: int | None = None
    ms: float | None = None
    sha256: str = ""
    error_code: str = ""
    error: str = ""
    truth: str = ""
    previous_label: str = ""
