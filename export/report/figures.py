"""The figures of a report, on no ground of their own, in ink that is legible on light and on dark."""

from pathlib import Path
from typing import Any

import numpy as np

from export.report.architecture_plot import plot
from export.report.numbers import ReportData
from export.training.calibration import reliability
from serving.contract.card import ModelCard

MOST_NAMED = 30  # classes; more names do not fit along an axis
INK = "#768196"
STYLE = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "legend.framealpha": 0.0,
}


def draw(folder: Path, card: ModelCard, data: ReportData) -> list[tuple[str, str]]:
    """Draw every figure that there are numbers for. Returns (title, file name) in the order of the page."""
    from matplotlib import rc_context

    drawers = [
        ("Training", "training.png", _training_curves, bool(data.history)),
        ("Calibration", "reliability.png", _reliability, len(data.truth) > 0),
        ("Images per class", "classes.png", _class_counts, bool(data.counts)),
        ("Architecture", "architecture.png", _architecture, bool(data.layers)),
    ]
    drawn = []
    for title, file, drawer, is_known in drawers:
        if is_known:
            is_plot = drawer is not _architecture  # whose boxes have colours of their own
            with rc_context(STYLE if is_plot else {}):
                drawer(card, data).savefig(folder / file, dpi=100, transparent=is_plot)
            drawn.append((title, file))
    return drawn


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # not pyplot: no global state, no window

    return Figure(figsize=(width, height), layout="constrained")


def _training_curves(_: ModelCard, data: ReportData) -> Any:
    figure = _figure(7, 3)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            if key in data.history:
                axes.plot(range(1, len(data.history[key]) + 1), data.history[key], label=label, marker=".")
        axes.set(xlabel="epoch", title=name)
        axes.legend()
    return figure


def _reliability(_: ModelCard, data: ReportData) -> Any:
    scores, shares, _counts = zip(*reliability(data.probabilities, data.truth), strict=True)
    figure = _figure(4.5, 4)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="gray", linestyle=":")
    axes.plot(scores, shares, marker="o")
    axes.set(xlabel="score", ylabel="share correct", xlim=(0, 1.02), ylim=(0, 1.02))
    return figure


def _class_counts(card: ModelCard, data: ReportData) -> Any:
    figure = _figure(7, 3)
    axes = figure.subplots()
    places = np.arange(len(card.labels))
    bottom = np.zeros(len(card.labels))
    for name, counts in data.counts.items():
        axes.bar(places, counts, bottom=bottom, label=name)
        bottom += counts
    if len(card.labels) <= MOST_NAMED:
        axes.set_xticks(places, card.label_names, rotation=90)
    axes.set_ylabel("images")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _architecture(_: ModelCard, data: ReportData) -> Any:
    return plot(data.layers)
