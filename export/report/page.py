"""The report of a version: an HTML page and its figures, drawn from numbers that are stored beside it.

`sightline export NAME --report-only` draws the page again from those numbers, without the data set and the model.
"""

import html
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from export.data.folders import FileSplit, record_split
from export.networks.keras_graph import LayerInfo
from export.report.architecture_plot import plot
from export.trained_model import Evaluated, TrainedModel
from export.training.calibration import reliability
from serving.contract.card import ModelCard, card_from_json, card_to_json
from serving.contract.errors import UsageError

PAGE, CARD, NUMBERS, ARRAYS, SPLIT = "index.html", "card.json", "numbers.json", "arrays.npz", "split.csv"
MISTAKES = 12
SAMPLES = 6
MOST_NAMED = 30  # classes; more names do not fit along a confusion matrix
THUMBNAIL = 160  # pixels


@dataclass(frozen=True, slots=True)
class ReportData:
    """The numbers and images of a report. counts: images of each class, by split.

    mistakes: {"truth", "guess", "score"} for each of `mistake_pictures`, most confident first.
    before, after: images before and after preprocessing. Arrays are empty where nothing was measured.
    """

    history: dict[str, list[float]]
    counts: dict[str, list[int]]
    mistakes: list[dict[str, Any]]
    summary: str
    layers: tuple[LayerInfo, ...]
    probabilities: npt.NDArray[np.float32]
    truth: npt.NDArray[np.int64]
    mistake_pictures: list[npt.NDArray[np.uint8]]
    before: list[npt.NDArray[np.uint8]]
    after: list[npt.NDArray[np.uint8]]


def write_report(folder: Path, card: ModelCard, trained: TrainedModel) -> Path:
    """Store the numbers of a model and draw them. Returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).write_text(card_to_json(card) + "\n", encoding="utf-8")
    _store(folder, report_data_of(trained))
    if isinstance(trained.train, FileSplit) and trained.validation and trained.test:
        splits = {"train": trained.train, "validation": trained.validation.split, "test": trained.test.split}
        record_split(splits, trained.labels, folder / SPLIT)
    return write_report_again(folder)


def write_report_again(folder: Path) -> Path:
    """Draw a report from its stored numbers. Returns the page. Raises UsageError where there are none."""
    try:
        card = card_from_json((folder / CARD).read_text(encoding="utf-8"))
        data = _restore(folder)
    except OSError as exc:
        raise UsageError(
            f"{folder} holds no numbers to report: {exc.strerror}.", hint="Export the model again."
        ) from exc
    drawn = _draw(folder, card, data)
    page = folder / PAGE
    page.write_text(_html(card, data, drawn), encoding="utf-8")
    return page


def report_data_of(trained: TrainedModel) -> ReportData:
    """Collect the numbers and images that the report shows."""
    before = [np.asarray(_small(picture)) for picture in trained.examples[:SAMPLES]]
    after = [_visible(trained.preprocessing.apply(picture)) for picture in trained.examples[:SAMPLES]]
    splits = {
        "train": trained.train,
        "validation": trained.validation.split if trained.validation else None,
        "test": trained.test.split if trained.test else None,
    }
    counts = {
        name: np.bincount(split.labels, minlength=len(trained.labels)).tolist()
        for name, split in splits.items()
        if split
    }
    chosen = confident_mistakes(trained.test) if trained.test else []
    return ReportData(
        history=trained.history,
        counts=counts,
        mistakes=[_mistake(trained, index) for index in chosen],
        summary=trained.servable.summary,
        layers=trained.servable.layers,
        probabilities=trained.test.probabilities if trained.test else np.zeros((0, len(trained.labels)), np.float32),
        truth=trained.test.split.labels if trained.test else np.zeros(0, np.int64),
        mistake_pictures=[np.asarray(_small(p)) for p in trained.test.split.pictures(chosen)] if trained.test else [],
        before=before,
        after=after,
    )


def confident_mistakes(evaluated: Evaluated) -> list[int]:
    """Find the misclassified images with the highest scores, highest first. Returns indices."""
    guesses, scores = evaluated.probabilities.argmax(axis=1), evaluated.probabilities.max(axis=1)
    wrong = np.flatnonzero(guesses != evaluated.split.labels)
    return [int(index) for index in wrong[np.argsort(-scores[wrong], kind="stable")][:MISTAKES]]


def _mistake(trained: TrainedModel, index: int) -> dict[str, Any]:
    assert trained.test
    row = trained.test.probabilities[index]
    names = [label.name for label in trained.labels]
    truth = names[int(trained.test.split.labels[index])]
    return {"truth": truth, "guess": names[int(row.argmax())], "score": float(row.max())}


def _small(picture: npt.NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(picture)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return image


def _visible(tensor: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Convert a model's input to a displayable image; floats are stretched to 0-255. Returns uint8 (h, w, 3)."""
    values = tensor.astype(np.float64)
    if tensor.dtype != np.uint8:
        values = (values - values.min()) / max(1e-9, values.max() - values.min()) * 255
    visible: npt.NDArray[np.uint8] = np.broadcast_to(values, (*values.shape[:2], 3)).astype(np.uint8)
    return visible


def _store(folder: Path, data: ReportData) -> None:
    numbers = {name: getattr(data, name) for name in ("history", "counts", "mistakes", "summary")}
    numbers["layers"] = [asdict(layer) for layer in data.layers]
    (folder / NUMBERS).write_text(json.dumps(numbers), encoding="utf-8")
    groups = {"mistake": data.mistake_pictures, "before": data.before, "after": data.after}
    pictures = {f"{group}-{i:02d}": p for group, members in groups.items() for i, p in enumerate(members)}
    arrays: dict[str, Any] = {"probabilities": data.probabilities, "truth": data.truth, **pictures}
    np.savez_compressed(folder / ARRAYS, **arrays)


def _restore(folder: Path) -> ReportData:
    numbers = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
    layers = tuple(
        LayerInfo(**{**layer, "shape": tuple(layer["shape"]), "inputs": tuple(layer["inputs"])})
        for layer in numbers.pop("layers", ())  # reports of older releases have none
    )
    with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
        groups = {
            group: [arrays[name] for name in sorted(arrays.files) if name.startswith(f"{group}-")]
            for group in ("mistake", "before", "after")
        }
        return ReportData(
            **numbers,
            layers=layers,
            probabilities=arrays["probabilities"],
            truth=arrays["truth"],
            mistake_pictures=groups["mistake"],
            before=groups["before"],
            after=groups["after"],
        )


def _draw(folder: Path, card: ModelCard, data: ReportData) -> list[tuple[str, str]]:
    """Draw every figure that there are numbers for. Returns (title, file name) in the order of the page."""
    drawers = [
        ("Training", "training.png", _training_curves, bool(data.history)),
        ("Confusion matrix", "confusion.png", _confusion, len(data.truth) > 0),
        ("Calibration", "reliability.png", _reliability, len(data.truth) > 0),
        ("Most confident mistakes", "mistakes.png", _mistakes, bool(data.mistakes)),
        ("Images before and after preprocessing", "samples.png", _samples, bool(data.before)),
        ("Images per class", "classes.png", _class_counts, bool(data.counts)),
        ("Architecture", "architecture.png", _architecture, bool(data.layers)),
    ]
    drawn = []
    for title, file, draw, is_known in drawers:
        if is_known:
            draw(card, data).savefig(folder / file, dpi=100)
            drawn.append((title, file))
    return drawn


def _figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Any:
    from matplotlib.figure import Figure  # not pyplot: no global state, no window

    return Figure(figsize=(width, height), layout=layout)


def _training_curves(_: ModelCard, data: ReportData) -> Any:
    figure = _figure(9, 3.5)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            if key in data.history:
                axes.plot(range(1, len(data.history[key]) + 1), data.history[key], label=label)
        axes.set(xlabel="epoch", title=name)
        axes.legend()
    return figure


def confusion_matrix(data: ReportData, classes: int) -> npt.NDArray[np.int64]:
    """Count the images of each true class (row) by predicted class (column)."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (data.truth, data.probabilities.argmax(axis=1)), 1)
    return matrix


def _confusion(card: ModelCard, data: ReportData) -> Any:
    names = card.label_names
    matrix = confusion_matrix(data, len(names))
    side = 4 + min(6.0, 0.3 * len(names))
    figure = _figure(side + 1, side)
    axes = figure.subplots()
    axes.imshow(matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True)), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted class", ylabel="true class")
    if len(names) <= MOST_NAMED:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        for row, column in zip(*np.nonzero(matrix), strict=True):
            dark = matrix[row, column] > matrix[row].sum() / 2
            colour = "white" if dark else "black"
            axes.text(column, row, matrix[row, column], ha="center", va="center", color=colour, fontsize=7)
    return figure


def _reliability(_: ModelCard, data: ReportData) -> Any:
    scores, shares, _counts = zip(*reliability(data.probabilities, data.truth), strict=True)
    figure = _figure(4.5, 4)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="gray", linestyle=":")
    axes.plot(scores, shares, marker="o")
    axes.set(xlabel="score", ylabel="share correct", xlim=(0, 1.02), ylim=(0, 1.02))
    return figure


def _mistakes(_: ModelCard, data: ReportData) -> Any:
    titles = [f"predicted {m['guess']} ({m['score']:.2f})\ntruth {m['truth']}" for m in data.mistakes]
    return _grid(data.mistake_pictures, titles)


def _grid(pictures: Sequence[npt.NDArray[np.uint8]], titles: Sequence[str]) -> Any:
    columns = 6
    lines = -(-len(pictures) // columns)
    figure = _figure(10, 2 * lines)
    places = figure.subplots(lines, columns, squeeze=False).flat
    for axes, picture, title in zip(places, pictures, titles, strict=False):
        axes.imshow(picture)
        axes.set_title(title, fontsize=7)
    for axes in figure.axes:
        axes.axis("off")
    return figure


def _samples(_: ModelCard, data: ReportData) -> Any:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    figure = _figure(10, 6.5, layout=None)  # the constrained layout of two dozen axes takes two seconds
    figure.subplots_adjust(left=0.04, right=0.98, bottom=0.04, top=0.96, wspace=0.3, hspace=0.4)
    pictures = figure.subplots(4, SAMPLES, squeeze=False)
    for row, (group, name) in enumerate(((data.before, "before"), (data.after, "after"))):
        for column in range(SAMPLES):
            image, histogram = pictures[2 * row][column], pictures[2 * row + 1][column]
            image.axis("off")
            if column >= len(group):
                histogram.axis("off")
                continue
            image.imshow(group[column])
            image.set_title(name, fontsize=8)
            histogram.stairs(*np.histogram(group[column], bins=32, range=(0, 255)), fill=True)
            histogram.set_yscale("log")
            histogram.xaxis.set_major_locator(MaxNLocator(3))
            histogram.yaxis.set_major_locator(LogLocator(numticks=4))
            histogram.yaxis.set_minor_locator(NullLocator())
            histogram.tick_params(labelsize=6)
    return figure


def _class_counts(card: ModelCard, data: ReportData) -> Any:
    figure = _figure(9, 3.5)
    axes = figure.subplots()
    places = np.arange(len(card.labels))
    bottom = np.zeros(len(card.labels))
    for name, counts in data.counts.items():
        axes.bar(places, counts, bottom=bottom, label=name)
        bottom += counts
    if len(card.labels) <= MOST_NAMED:
        axes.set_xticks(places, card.label_names, rotation=90)
    axes.set_ylabel("images")
    axes.legend()
    return figure


def _architecture(_: ModelCard, data: ReportData) -> Any:
    return plot(data.layers)


def _html(card: ModelCard, data: ReportData, drawn: Sequence[tuple[str, str]]) -> str:
    title = html.escape(f"{card.name}: {card.family}")
    facts = {
        "created": card.created,
        "source": f"{card.source.kind} {card.source.name}",
        "parameters": f"{card.training.parameters:,}",
        "epochs": card.training.epochs,
        "seed": card.training.seed,
        "seconds": card.training.seconds,
        "temperature": card.calibration.temperature,
        "TensorFlow, Keras": f"{card.training.tensorflow}, {card.training.keras}",
    }
    parts = [f"<h1>{title}</h1>", _table(facts), "<h2>Metrics</h2>"]
    parts.append(
        _table({name: f"{value:.4f}" for name, value in card.metrics.items()}) or "<p>Nothing was measured.</p>"
    )
    if len(data.truth):
        parts.append(f"<h2>Classes</h2><pre>{html.escape(classification_report(card, data))}</pre>")
    parts += [f'<h2>{name}</h2><img src="{file}" alt="{name}">' for name, file in drawn]
    parts.append(f"<h2>Layers</h2><pre>{html.escape(data.summary)}</pre>")
    style = "body{font:15px system-ui;margin:2em auto;max-width:64em}td{padding:0 1em 0 0}img{max-width:100%}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{style}</style>'
        f"{''.join(parts)}</html>\n"
    )


def classification_report(card: ModelCard, data: ReportData) -> str:
    """Format precision, recall and F1 of each class that has images, as scikit-learn's table."""
    from sklearn.metrics import classification_report as table_of

    guesses = data.probabilities.argmax(axis=1)
    present = np.union1d(data.truth, guesses)
    names = [card.label_names[index] for index in present]
    table: str = table_of(data.truth, guesses, labels=present, target_names=names, digits=4, zero_division=0.0)
    return table


def _table(facts: dict[str, Any]) -> str:
    rows = (f"<tr><td>{html.escape(str(k))}<td>{html.escape(str(v))}" for k, v in facts.items())
    return f"<table>{''.join(rows)}</table>" if facts else ""
