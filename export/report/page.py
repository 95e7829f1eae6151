"""The report of a version: an HTML page and its figures, drawn from numbers that are stored beside it.

`sightline export NAME --report-only` draws the page again from those numbers, without the data set and the model.
"""

from pathlib import Path

from export.data.folders import FileSplit, record_split
from export.report.document import document
from export.report.figures import draw
from export.report.numbers import report_data_of, restore, store
from export.trained_model import Probabilities, TrainedModel
from serving.contract.card import ModelCard, card_from_json, card_to_json
from serving.contract.errors import UsageError

PAGE, CARD, SPLIT = "index.html", "card.json", "split.csv"


def write_report(folder: Path, card: ModelCard, trained: TrainedModel, answers: Probabilities) -> Path:
    """Store the numbers of a model and draw them. answers: the probabilities of its examples. Returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).write_text(card_to_json(card) + "\n", encoding="utf-8")
    store(folder, report_data_of(trained, answers))
    if isinstance(trained.train, FileSplit) and trained.validation and trained.test:
        splits = {"train": trained.train, "validation": trained.validation.split, "test": trained.test.split}
        record_split(splits, trained.labels, folder / SPLIT)
    return write_report_again(folder)


def write_report_again(folder: Path) -> Path:
    """Draw a report from its stored numbers. Returns the page. Raises UsageError where there are none."""
    try:
        card = card_from_json((folder / CARD).read_text(encoding="utf-8"))
        data = restore(folder)
    except OSError as exc:
        raise UsageError(
            f"{folder} holds no numbers to report: {exc.strerror}.", hint="Export the model again."
        ) from exc
    drawn = draw(folder, card, data)
    page = folder / PAGE
    page.write_text(document(card, data, drawn), encoding="utf-8")
    return page
