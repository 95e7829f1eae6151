"""Draw the layers of a model: connections, output shapes and numbers of parameters.

Keras's plot_model needs the Graphviz program; this needs matplotlib, which the report uses anyway.
"""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from export.networks.keras_graph import LayerInfo

ROWS = 40  # layers in a column of the drawing; a deeper network continues in the next one
BOX = (2.6, 0.36)  # inches
GAP = (0.35, 0.16)  # inches between boxes
LARGEST = 150.0  # inches; upper bound of either side
COLOURS = {  # by a word in the kind of a layer; the first match counts
    "Conv": "#cfe2f3",
    "Pool": "#f4cccc",
    "Norm": "#fff2cc",
    "Dense": "#d9ead3",
    "Add": "#ead1dc",
    "Concat": "#ead1dc",
    "Input": "#e0e0e0",
}
OTHER = "#f7f7f7"
LINE = "#555555"


def plot(layers: Sequence[LayerInfo]) -> Any:
    """Draw the layers as a matplotlib figure. A layer's row is the length of the longest path from the input."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    places = _places(layers)
    columns = 1 + max(column for column, _ in places.values())
    rows = 1 + max(row for _, row in places.values())
    step = BOX[0] + GAP[0], BOX[1] + GAP[1]
    figure = Figure(figsize=(min(LARGEST, columns * step[0]), min(LARGEST, rows * step[1])))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-GAP[0] / 2, columns * step[0] - GAP[0] / 2), ylim=(rows * step[1] - GAP[1] / 2, -GAP[1] / 2))
    axes.axis("off")
    for layer in layers:
        column, row = places[layer.name]
        left, top = column * step[0], row * step[1]
        axes.add_patch(Rectangle((left, top), *BOX, facecolor=colour_of(layer.kind), edgecolor=LINE, linewidth=0.6))
        axes.text(left + BOX[0] / 2, top + BOX[1] / 2, _caption(layer), ha="center", va="center", fontsize=6.5)
        for feeder in layer.inputs:
            from_left, from_top = places[feeder][0] * step[0], places[feeder][1] * step[1]
            skips = places[feeder][0] == column and row - places[feeder][1] > 1
            if skips:  # a line around the boxes between them
                way = [from_left, from_left - GAP[0] / 3, left - GAP[0] / 3, left]
                axes.plot(way, [from_top + BOX[1] / 2] * 2 + [top + BOX[1] / 2] * 2, color=LINE, linewidth=0.6)
                continue
            is_above = places[feeder][1] < row
            start = (from_left + BOX[0] / 2, from_top + (BOX[1] if is_above else BOX[1] / 2))
            axes.annotate(
                "",
                xy=(left + BOX[0] / 2, top),
                xytext=start,
                zorder=0,
                arrowprops={"arrowstyle": "-|>", "mutation_scale": 6, "linewidth": 0.6, "color": LINE},
            )
    return figure


def _places(layers: Sequence[LayerInfo]) -> dict[str, tuple[int, int]]:
    """Place each layer at (column, row). Branches stand side by side; a deep network is cut into strips."""
    depths: dict[str, int] = {}
    for layer in layers:
        depths[layer.name] = 1 + max((depths[feeder] for feeder in layer.inputs), default=-1)
    at_depth: dict[int, list[str]] = defaultdict(list)
    for name, depth in depths.items():
        at_depth[depth].append(name)
    strips = [range(start, start + ROWS) for start in range(0, max(at_depth) + 1, ROWS)]
    widths = [max(len(at_depth[depth]) for depth in strip if depth in at_depth) for strip in strips]
    lefts = [0, *itertools.accumulate(widths)]
    return {
        name: (lefts[depth // ROWS] + index, depth % ROWS)
        for depth, names in at_depth.items()
        for index, name in enumerate(names)
    }


def colour_of(kind: str) -> str:
    """The colour of a kind of layer: all convolutions share one, all poolings another, and so on."""
    return next((colour for word, colour in COLOURS.items() if word in kind), OTHER)


def _caption(layer: LayerInfo) -> str:
    shape = " x ".join("?" if size is None else str(size) for size in layer.shape)
    parameters = f", {layer.parameters:,} parameters" if layer.parameters else ""
    return f"{layer.kind}  {layer.name.rsplit('/', 1)[-1]}\n{shape}{parameters}"
