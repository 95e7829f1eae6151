"""The report of a version: one HTML page and its PNGs, made of numbers that are stored beside it.

`sightline export NAME --report-only` draws the page again from those numbers, without data and without a model.
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
from export.made import Judged, Made
from export.networks.keras_graph import Layer
from export.report.architecture_plot import plot
from export.training.calibration import reliability
from serving.contract.card import ModelCard, card_from_json, card_to_json
from serving.contract.errors import UsageError

PAGE, CARD, NUMBERS, ARRAYS, SPLIT = "index.html", "card.json", "numbers.json", "arrays.npz", "split.csv"
MISTAKES = 12
SAMPLES = 6
MOST_NAMED = 30  # classes whose names fit along a confusion matrix
THUMBNAIL = 160  # pixels


@dataclass(frozen=True, slots=True)
class Evidence:
    """The numbers and pictures of a report. counts: pictures of each class, by split.

    mistakes: {"truth", "guess", "score"} for each picture of `mistake_pictures`, most confident first.
    before, after: pictures before and after preprocessing. Arrays are empty where nothing was measured.
    """

    history: dict[str, list[float]]
    counts: dict[str, list[int]]
    mistakes: list[dict[str, Any]]
    summary: str
    layers: tuple[Layer, ...]
    probabilities: npt.NDArray[np.float32]
    truth: npt.NDArray[np.int64]
    mistake_pictures: list[npt.NDArray[np.uint8]]
    before: list[npt.NDArray[np.uint8]]
    after: list[npt.NDArray[np.uint8]]


def write_report(folder: Path, card: ModelCard, made: Made) -> Path:
    """Store the numbers of a model's making and draw them. Returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).write_text(card_to_json(card) + "\n", encoding="utf-8")
    _store(folder, evidence_of(made))
    if isinstance(made.train, FileSplit) and made.validation and made.test:
        splits = {"train": made.train, "validation": made.validation.split, "test": made.test.split}
        record_split(splits, made.labels, folder / SPLIT)
    return write_report_again(folder)


def write_report_again(folder: Path) -> Path:
    """Draw the stored numbers of a report. Returns the page. Raises UsageError where there are none."""
    try:
        card = card_from_json((folder / CARD).read_text(encoding="utf-8"))
        evidence = _restore(folder)
    except OSError as exc:
        raise UsageError(
            f"{folder} holds no numbers to report: {exc.strerror}", hint="Export the model again."
        ) from exc
    drawn = _draw(folder, card, evidence)
    page = folder / PAGE
    page.write_text(_html(card, evidence, drawn), encoding="utf-8")
    return page


def evidence_of(made: Made) -> Evidence:
    """What the report tells, out of what the family handed over."""
    before = [np.asarray(_small(picture)) for picture in made.examples[:SAMPLES]]
    after = [_visible(made.preprocessing.apply(picture)) for picture in made.examples[:SAMPLES]]
    splits = {
        "train": made.train,
        "validation": made.validation.split if made.validation else None,
        "test": made.test.split if made.test else None,
    }
    counts = {
        name: np.bincount(split.labels, minlength=len(made.labels)).tolist() for name, split in splits.items() if split
    }
    chosen = confident_mistakes(made.test) if made.test else []
    return Evidence(
        history=made.history,
        counts=counts,
        mistakes=[_mistake(made, index) for index in chosen],
        summary=made.servable.summary,
        layers=made.servable.layers,
        probabilities=made.test.probabilities if made.test else np.zeros((0, len(made.labels)), np.float32),
        truth=made.test.split.labels if made.test else np.zeros(0, np.int64),
        mistake_pictures=[np.asarray(_small(p)) for p in made.test.split.pictures(chosen)] if made.test else [],
        before=before,
        after=after,
    )


def confident_mistakes(judged: Judged) -> list[int]:
    """Indices of the pictures that the model is wrong about, the surest first."""
    guesses, scores = judged.probabilities.argmax(axis=1), judged.probabilities.max(axis=1)
    wrong = np.flatnonzero(guesses != judged.split.labels)
    return [int(index) for index in wrong[np.argsort(-scores[wrong], kind="stable")][:MISTAKES]]


def _mistake(made: Made, index: int) -> dict[str, Any]:
    assert made.test
    row = made.test.probabilities[index]
    names = [label.name for label in made.labels]
    truth = names[int(made.test.split.labels[index])]
    return {"truth": truth, "guess": names[int(row.argmax())], "score": float(row.max())}


def _small(picture: npt.NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(picture)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return image


def _visible(tensor: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """A model's input as a picture: float tensors are stretched to 0-255. Returns uint8 (h, w, 3)."""
    values = tensor.astype(np.float64)
    if tensor.dtype != np.uint8:
        values = (values - values.min()) / max(1e-9, values.max() - values.min()) * 255
    visible: npt.NDArray[np.uint8] = np.broadcast_to(values, (*values.shape[:2], 3)).astype(np.uint8)
    return visible


def _store(folder: Path, evidence: Evidence) -> None:
    numbers = {name: getattr(evidence, name) for name in ("history", "counts", "mistakes", "summary")}
    numbers["layers"] = [asdict(layer) for layer in evidence.layers]
    (folder / NUMBERS).write_text(json.dumps(numbers), encoding="utf-8")
    groups = {"mistake": evidence.mistake_pictures, "before": evidence.before, "after": evidence.after}
    pictures = {f"{group}-{i:02d}": p for group, members in groups.items() for i, p in enumerate(members)}
    arrays: dict[str, Any] = {"probabilities": evidence.probabilities, "truth": evidence.truth, **pictures}
    np.savez_compressed(folder / ARRAYS, **arrays)


def _restore(folder: Path) -> Evidence:
    numbers = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
    layers = tuple(
        Layer(**{**layer, "shape": tuple(layer["shape"]), "inputs": tuple(layer["inputs"])})
        for layer in numbers.pop("layers", ())  # reports of older versions have none
    )
    with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
        groups = {
            group: [arrays[name] for name in sorted(arrays.files) if name.startswith(f"{group}-")]
            for group in ("mistake", "before", "after")
        }
        return Evidence(
            **numbers,
            layers=layers,
            probabilities=arrays["probabilities"],
            truth=arrays["truth"],
            mistake_pictures=groups["mistake"],
            before=groups["before"],
            after=groups["after"],
        )


def _draw(folder: Path, card: ModelCard, evidence: Evidence) -> list[tuple[str, str]]:
    """Every figure that there are numbers for. Returns (title, file name) in the order of the page."""
    drawers = [
        ("Training", "training.png", _training_curves, bool(evidence.history)),
        ("Confusion matrix", "confusion.png", _confusion, len(evidence.truth) > 0),
        ("Are scores honest?", "reliability.png", _reliability, len(evidence.truth) > 0),
        ("Most confident mistakes", "mistakes.png", _mistakes, bool(evidence.mistakes)),
        ("Pictures before and after preprocessing", "samples.png", _samples, bool(evidence.before)),
        ("Pictures of each class", "classes.png", _class_counts, bool(evidence.counts)),
        ("Architecture", "architecture.png", _architecture, bool(evidence.layers)),
    ]
    drawn = []
    for title, file, draw, is_known in drawers:
        if is_known:
            draw(card, evidence).savefig(folder / file, dpi=100)
            drawn.append((title, file))
    return drawn


def _figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Any:
    from matplotlib.figure import Figure  # not pyplot: no global state, no window

    return Figure(figsize=(width, height), layout=layout)


def _training_curves(_: ModelCard, evidence: Evidence) -> Any:
    figure = _figure(9, 3.5)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            if key in evidence.history:
                axes.plot(range(1, len(evidence.history[key]) + 1), evidence.history[key], label=label)
        axes.set(xlabel="epoch", title=name)
        axes.legend()
    return figure


def confusion_matrix(evidence: Evidence, classes: int) -> npt.NDArray[np.int64]:
    """How many pictures of each class (row) were taken for each class (column)."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (evidence.truth, evidence.probabilities.argmax(axis=1)), 1)
    return matrix


def _confusion(card: ModelCard, evidence: Evidence) -> Any:
    names = card.label_names
    matrix = confusion_matrix(evidence, len(names))
    side = 4 + min(6.0, 0.3 * len(names))
    figure = _figure(side + 1, side)
    axes = figure.subplots()
    axes.imshow(matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True)), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="the model says", ylabel="the truth")
    if len(names) <= MOST_NAMED:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        for row, column in zip(*np.nonzero(matrix), strict=True):
            dark = matrix[row, column] > matrix[row].sum() / 2
            colour = "white" if dark else "black"
            axes.text(column, row, matrix[row, column], ha="center", va="center", color=colour, fontsize=7)
    return figure


def _reliability(_: ModelCard, evidence: Evidence) -> Any:
    scores, shares, _counts = zip(*reliability(evidence.probabilities, evidence.truth), strict=True)
    figure = _figure(4.5, 4)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="gray", linestyle=":")
    axes.plot(scores, shares, marker="o")
    axes.set(xlabel="score", ylabel="share that is right", xlim=(0, 1.02), ylim=(0, 1.02))
    return figure


def _mistakes(_: ModelCard, evidence: Evidence) -> Any:
    titles = [f"{m['guess']} ({m['score']:.2f})\nis {m['truth']}" for m in evidence.mistakes]
    return _grid([evidence.mistake_pictures], titles)


def _grid(rows: Sequence[Sequence[Any]], titles: Sequence[str]) -> Any:
    columns = 6
    lines = -(-len(rows[0]) // columns)
    figure = _figure(10, 2 * lines)
    for index, (axes, picture) in enumerate(
        zip(figure.subplots(lines, columns, squeeze=False).flat, rows[0], strict=False)
    ):
        axes.imshow(picture)
        axes.set_title(titles[index], fontsize=7)
    for axes in figure.axes:
        axes.axis("off")
    return figure


def _samples(_: ModelCard, evidence: Evidence) -> Any:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    figure = _figure(10, 6.5, layout=None)  # constrained to fit, two dozen axes take two seconds
    figure.subplots_adjust(left=0.04, right=0.98, bottom=0.04, top=0.96, wspace=0.3, hspace=0.4)
    pictures = figure.subplots(4, SAMPLES, squeeze=False)
    for row, (group, name) in enumerate(((evidence.before, "before"), (evidence.after, "after"))):
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


def _class_counts(card: ModelCard, evidence: Evidence) -> Any:
    figure = _figure(9, 3.5)
    axes = figure.subplots()
    places = np.arange(len(card.labels))
    bottom = np.zeros(len(card.labels))
    for name, counts in evidence.counts.items():
        axes.bar(places, counts, bottom=bottom, label=name)
        bottom += counts
    if len(card.labels) <= MOST_NAMED:
        axes.set_xticks(places, card.label_names, rotation=90)
    axes.set_ylabel("pictures")
    axes.legend()
    return figure


def _architecture(_: ModelCard, evidence: Evidence) -> Any:
    return plot(evidence.layers)


def _html(card: ModelCard, evidence: Evidence, drawn: Sequence[tuple[str, str]]) -> str:
    title = html.escape(f"{card.name}: {card.family}")
    facts = {
        "made": card.created,
        "of": f"{card.source.kind} {card.source.name}",
        "parameters": f"{card.training.parameters:,}",
        "epochs": card.training.epochs,
        "seed": card.training.seed,
        "seconds": card.training.seconds,
        "temperature": card.calibration.temperature,
        "TensorFlow, Keras": f"{card.training.tensorflow}, {card.training.keras}",
    }
    parts = [f"<h1>{title}</h1>", _table(facts), "<h2>Numbers</h2>"]
    parts.append(_table({name: f"{value:.4f}" for name, value in card.metrics.items()}) or "<p>None were measured.</p>")
    if len(evidence.truth):
        parts.append(f"<h2>By class</h2><pre>{html.escape(classification_report(card, evidence))}</pre>")
    parts += [f'<h2>{name}</h2><img src="{file}" alt="{name}">' for name, file in drawn]
    parts.append(f"<h2>Layers</h2><pre>{html.escape(evidence.summary)}</pre>")
    style = "body{font:15px system-ui;margin:2em auto;max-width:64em}td{padding:0 1em 0 0}img{max-width:100%}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{style}</style>'
        f"{''.join(parts)}</html>\n"
    )


def classification_report(card: ModelCard, evidence: Evidence) -> str:
    """Precision, recall and F1 of each class that has pictures: scikit-learn's table."""
    from sklearn.metrics import classification_report as table_of

    guesses = evidence.probabilities.argmax(axis=1)
    present = np.union1d(evidence.truth, guesses)
    names = [card.label_names[index] for index in present]
    table: str = table_of(evidence.truth, guesses, labels=present, target_names=names, digits=4, zero_division=0.0)
    return table


def _table(facts: dict[str, Any]) -> str:
    rows = (f"<tr><td>{html.escape(str(k))}<td>{html.escape(str(v))}" for k, v in facts.items())
    return f"<table>{''.join(rows)}</table>" if facts else ""
