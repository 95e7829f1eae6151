"""The report as HTML: the result in words first, then what a person must check, then the details."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from export.report.numbers import ReportData
from serving.contract.card import ModelCard
from serving.contract.preprocessing import Preprocessing

MOST_COUNTED = 30  # classes; a larger confusion matrix becomes the list of its largest counts
MOST_PAIRS = 20  # confusions of a larger matrix
MANY = 200  # images; of so many a percentage has a decimal
STYLE = """
:root{color-scheme:light dark;--ink:#1a2230;--soft:#566072;--ground:#f6f7f9;--sheet:#fff;--line:#d5dae2;--mark:#1f5fd0}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecf3;--soft:#a0abbd;--ground:#11151c;--sheet:#1a202a;--line:#343d4c;--mark:#7fb0ff}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:64rem;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.1rem;color:var(--soft);margin:0}h2{font-size:1.15rem;margin:2rem 0 .5rem}
.headline{font-size:1.7rem;line-height:1.25;font-weight:600;margin:.2rem 0 1rem}
.soft{color:var(--soft);font-size:.9rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem}
td,th{padding:.25rem .7rem .25rem 0;text-align:left;vertical-align:top;border-top:1px solid var(--line)}
tr:first-child>*{border-top:0}
.number{text-align:right;font-variant-numeric:tabular-nums}
.matrix td,.matrix th{border:1px solid var(--line);padding:.25rem .5rem}
.matrix td{text-align:right;background:color-mix(in srgb,var(--mark) var(--share,0%),var(--sheet))}
.matrix .diagonal{font-weight:700}
.matrix thead th{writing-mode:sideways-lr;vertical-align:bottom}
.matrix tbody th{position:sticky;left:0;background:var(--sheet)}
.cards{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr))}
.small{grid-template-columns:repeat(auto-fill,minmax(9rem,1fr))}
figure{margin:0;padding:.7rem;background:var(--sheet);border:1px solid var(--line);border-radius:.5rem}
figure .pair{display:grid;grid-template-columns:1fr 1fr;gap:.5rem}
figure img{width:100%;aspect-ratio:1;object-fit:contain}
.saw{image-rendering:pixelated}
figcaption{overflow-wrap:anywhere}figcaption b{font-size:1.2rem}
.plot{max-width:100%;height:auto}
pre{overflow-x:auto;font-size:.8rem;background:var(--sheet);padding:.7rem;border-radius:.4rem}
"""
# The end of a metric's name: its meaning. The longest that fits counts.
TERMS = {
    "top5_accuracy": "the share of images whose class is among the five likeliest labels",
    "balanced_accuracy": "the accuracy if every class had as many images",
    "accuracy": "the share of images whose likeliest label is right",
    "loss": "the mean of -ln of the right class's score; lower is better, and certain mistakes cost most",
    "macro_f1": "precision and recall in one number, the mean over the classes",
    "matthews": "the correlation of label and truth: 1 is perfect, 0 is chance",
    "calibration_error": "how far, on average, a score is from the share of images that are right at this score",
    "roc_auc": "how often an image of a class gets a higher score for it than an image of another",
}
FITS = {
    "stretch": "both sides are resized; the shape changes",
    "crop": "the short side is resized, and the centre is cut out",
    "fill": "the largest centre piece of the right shape is resized",
    "pad": "the long side is resized, and black is added",
    "ink": "the drawing is found and framed as in MNIST",
}


def document(card: ModelCard, data: ReportData, drawn: Sequence[tuple[str, str]]) -> str:
    """Write the page. drawn: title and file name of each figure, in their order."""
    title = html.escape(card.name if card.name == card.family else f"{card.name}: {card.family}")
    parts = [f"<h1>{title}</h1>", f'<p class="headline">{html.escape(headline(card, data))}</p>']
    parts += _answers(data) if not len(data.truth) else []
    parts += _input(card, data)
    parts += _metrics(card)
    parts += _classes(card, data)
    parts += _mistakes(data)
    parts += [f'<h2>{name}</h2><img class="plot" src="{file}" alt="{name}">' for name, file in drawn]
    parts += _answers(data) if len(data.truth) else []
    parts += ["<h2>The model</h2>", _table(_facts(card))]
    parts += [f'<h2>Layers</h2><pre tabindex="0">{html.escape(data.summary)}</pre>']
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{chr(10).join(parts)}\n</main>\n</body>\n</html>\n"
    )


def headline(card: ModelCard, data: ReportData) -> str:
    """Say the result in words: the accuracy on images that the model had not seen, or what is to be checked."""
    count = len(data.truth)
    if count:
        right = int((data.probabilities.argmax(axis=1) == data.truth).sum())
        return f"{percent(right, count)}: {right:,} of {count:,} images that the model had not seen."
    classes = f"{len(card.labels):,} class{'' if len(card.labels) == 1 else 'es'}"
    if data.answers:
        return f"{classes}, not measured here. Check what it says of the examples."
    return f"{classes}, not measured here."


def percent(part: int, whole: int) -> str:
    """Write a share with as many decimals as `whole` justifies; only all is 100 %, and only none is 0 %."""
    for decimals in range(1 if whole >= MANY else 0, 7):
        text = f"{100 * part / whole:.{decimals}f}"
        if (float(text) == 100) == (part == whole) and (float(text) == 0) == (part == 0):
            return f"{text} %"
    raise AssertionError("a share of six decimals is neither 0 nor 100")


def _answers(data: ReportData) -> list[str]:
    """The examples, what the model saw of each, and what it said."""
    if not data.answers:
        return []
    cards = [
        f'<figure><div class="pair">{_image(before, "the image")}{_image(after, "what the model saw", "saw")}</div>'
        f"<figcaption><b>{html.escape(answer[0][0])}</b> {answer[0][1]:.1%}"
        f'<div class="soft">{html.escape(", ".join(f"{name} {score:.1%}" for name, score in answer[1:]))}</div>'
        "</figcaption></figure>"
        for before, after, answer in zip(data.before, data.after, data.answers, strict=False)
    ]
    hint = (
        "Left the image, right what the model saw of it. If the labels are wrong or the scores flat, the scaling, the "
        "size or the order of the labels is not what the model was trained with."
    )
    return [f'<h2>What it says of the examples</h2><p class="soft">{hint}</p><div class="cards">{"".join(cards)}</div>']


def _input(card: ModelCard, data: ReportData) -> list[str]:
    told = ["<h2>What it was told</h2>", _table(data.told)] if data.told else []
    return [*told, "<h2>How an image becomes its input</h2>", _table(_steps(card.preprocessing))]


def _steps(steps: Preprocessing) -> dict[str, str]:
    """Say the preprocessing in words."""
    short = f" to {steps.resize_short_side} pixels" if steps.resize_short_side else ""
    antialias = "with" if steps.antialias else "without"
    scaling = "none here: the model takes bytes and scales them itself"
    if steps.dtype != "uint8":
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (steps.mean, steps.std))
        scaling = f"(pixel * {steps.scale:g} - mean {mean}) / std {std}, channels {steps.channel_order}"
    return {
        "size": f"{steps.width} x {steps.height}, {steps.color}",
        "fit": f"{steps.fit}: {FITS[steps.fit]}{short}",
        "resize": f"{steps.interpolation}, {antialias} antialias",
        "polarity": "dark background: bright images are inverted"
        if steps.polarity == "dark_background"
        else "as it is",
        "scaling": scaling,
    }


def _metrics(card: ModelCard) -> list[str]:
    if not card.metrics:
        return ["<h2>Metrics</h2><p>Nothing was measured.</p>"]
    rows = [[name.replace("_", " "), f"{value:.4f}", _meaning(name)] for name, value in card.metrics.items()]
    return ["<h2>Metrics</h2>", _rows(rows, numbers={1})]


def _meaning(metric: str) -> str:
    fitting = [end for end in TERMS if metric.endswith(end)]
    return TERMS[max(fitting, key=len)] if fitting else ""


def confusion_matrix(data: ReportData, classes: int) -> npt.NDArray[np.int64]:
    """Count the images of each true class (row) by predicted class (column)."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (data.truth, data.probabilities.argmax(axis=1)), 1)
    return matrix


def _classes(card: ModelCard, data: ReportData) -> list[str]:
    """The confusion matrix, and precision, recall and F1 of each class that has images, the weakest first."""
    if not len(data.truth):
        return []
    matrix = confusion_matrix(data, len(card.labels))
    if len(card.labels) <= MOST_COUNTED:
        text = "Each row is a true class, each column what the model said. Right answers are on the diagonal."
        confusion = f'<p class="soft">{text}</p>{_matrix(card.label_names, matrix)}'
    else:
        confusion = _pairs(card.label_names, matrix)
    terms = (
        "Precision: of the images that were given this label, the share that is right. Recall: of the images of this "
        "class, the share that was found. F1: both in one number. The weakest class is first."
    )
    return [
        f"<h2>Confusion matrix</h2>{confusion}",
        f'<h2>Classes</h2><p class="soft">{terms}</p>',
        _rows(_class_rows(card.label_names, matrix), ["class", "images", "precision", "recall", "F1"], {1, 2, 3, 4}),
    ]


def _matrix(names: Sequence[str], matrix: npt.NDArray[np.int64]) -> str:
    head = "".join(f"<th scope=col>{html.escape(name)}" for name in names)
    body = []
    for row, name in enumerate(names):
        total = max(1, int(matrix[row].sum()))
        cells = (
            f'<td{" class=diagonal" if column == row else ""} style="--share:{40 * count // total}%">{count or ""}'
            for column, count in enumerate(matrix[row].tolist())
        )
        body.append(f"<tr><th scope=row>{html.escape(name)}{''.join(cells)}")
    return (
        f'<div class="wide" tabindex="0"><table class="matrix"><thead><tr><td>{head}</thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _pairs(names: Sequence[str], matrix: npt.NDArray[np.int64]) -> str:
    """List the largest counts beside the diagonal."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    places = [divmod(int(place), len(names)) for place in np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]]
    rows = [
        [names[truth], names[guess], f"{wrong[truth, guess]} of {matrix[truth].sum()}"]
        for truth, guess in places
        if wrong[truth, guess]
    ]
    return _rows(rows, ["truth", "the model said", "images"], {2}) if rows else "<p>There is no mistake.</p>"


def _class_rows(names: Sequence[str], matrix: npt.NDArray[np.int64]) -> list[list[str]]:
    right, images, guesses = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    precision, recall = right / np.maximum(1, guesses), right / np.maximum(1, images)
    f1 = 2 * right / np.maximum(1, images + guesses)
    present = [index for index in np.argsort(f1, kind="stable") if images[index] or guesses[index]]
    return [
        [names[index], f"{images[index]:,}", *(f"{column[index]:.3f}" for column in (precision, recall, f1))]
        for index in present
    ]


def _mistakes(data: ReportData) -> list[str]:
    if not data.mistakes:
        return []
    cards = [
        f"<figure>{_image(picture, 'a mistaken image')}<figcaption><b>{html.escape(mistake['guess'])}</b> "
        f'{mistake["score"]:.1%}<div class="soft">truth: {html.escape(mistake["truth"])}</div></figcaption></figure>'
        for picture, mistake in zip(data.mistake_pictures, data.mistakes, strict=False)
    ]
    return [f'<h2>Most confident mistakes</h2><div class="cards small">{"".join(cards)}</div>']


def _facts(card: ModelCard) -> dict[str, Any]:
    return {
        "created": card.created,
        "source": f"{card.source.kind} {card.source.name}",
        "parameters": f"{card.training.parameters:,}",
        "epochs": card.training.epochs,
        "seed": card.training.seed,
        "seconds": card.training.seconds,
        "temperature": card.calibration.temperature,
        "TensorFlow, Keras": f"{card.training.tensorflow}, {card.training.keras}",
    }


def _image(picture: npt.NDArray[np.uint8], alt: str, kind: str = "") -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return f'<img src="{source}" alt="{alt}"{f" class={kind}" if kind else ""}>'


def _table(facts: Mapping[str, Any]) -> str:
    return _rows([[key, str(value)] for key, value in facts.items()])


def _rows(rows: Iterable[Sequence[str]], head: Sequence[str] = (), numbers: AbstractSet[int] = frozenset()) -> str:
    """Write a table. numbers: the columns that are aligned to the right."""

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = (" class=number" if place in numbers else "" for place in range(len(cells)))
        return "<tr>" + "".join(f"<{tag}{kind}>{html.escape(cell)}" for kind, cell in zip(kinds, cells, strict=True))

    lines = [line(head, "th")] if head else []
    lines += [line(row, "td") for row in rows]
    return f'<div class="wide" tabindex="0"><table>{"".join(lines)}</table></div>'
