"""`sightline review`: a results file as one offline page, to look through and correct.

The page holds everything: thumbnails, rows, script. Corrections stay in the browser's storage until they are saved as a
CSV with the columns `path` (absolute) and `label`, which `sightline export transfer` takes as data. A cell that a
spreadsheet would run as a formula begins with an apostrophe there, which the export takes away.
"""

import base64
import heapq
import html
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
from PIL import Image
from sightline.errors import SightlineError, UsageError

from clients.batch.errors import OutputFailed
from clients.batch.rows import OK, Row
from clients.batch.sources import PictureReader
from clients.batch.truth import known_truths
from clients.batch.writers import read_rows
from serving.contract.errors import BadImage
from serving.contract.image import decode_image
from serving.contract.image_limits import ImageLimits
from serving.contract.names import existing_path

THUMBNAIL = 112  # pixels of the long side
QUALITY = 70  # of the thumbnails' JPEG
MANY = 5000  # pictures; a page of so many thumbnails is some 15 MB
TEMPLATE = "review.html"
DATA_MARK = "/*DATA*/null"
TITLE_MARK = "<!--TITLE-->"


@dataclass(frozen=True, slots=True)
class Page:
    """The content of the page. counts: rows of each label, the failed under "".

    confusion: (truth, label, how many), of all rows, shown or not.
    """

    title: str
    rows: Sequence[Row]
    truths: Sequence[str]
    total: int
    counts: list[tuple[str, int]]
    labels: list[str]
    confusion: list[tuple[str, str, int]]


@click.command(epilog="Example: sightline review labels.csv --out review.html")
@click.argument("results", type=click.Path())
@click.option("--out", "-o", required=True, type=click.Path(), help="The page to write.")
@click.option("--limit", default=MANY, show_default=True, type=click.IntRange(1), help="Most pictures on the page.")
@click.option("--overwrite", is_flag=True, help="Replace the page that is there.")
@click.option("--archive-encoding", help="The --archive-encoding that the pictures were scored with.")
def review(*, results: str, out: str, limit: int, overwrite: bool, archive_encoding: str | None) -> None:
    """Make one offline page of a results file, to look through and correct.

    It shows the failed and the least certain first, has filters and the confusion table, and saves corrections as CSV.
    """
    if Path(out).exists() and not overwrite:
        raise UsageError(f"{out} exists already.", hint="Name another page, or replace it with --overwrite.")
    page = collect(results, limit)
    try:
        Path(out).write_text(rendered(page, thumbnails(page.rows, archive_encoding)), encoding="utf-8")
    except OSError as exc:
        raise OutputFailed(f"{out} cannot be written: {exc.strerror}.") from exc
    click.echo(f"{len(page.rows)} of {page.total} pictures are in {out}: open it in a browser.")


def collect(results: str, limit: int) -> Page:
    """Choose the rows that the page shows: the failed and the least certain. Raises UsageError."""
    counts: Counter[str] = Counter()
    labels: set[str] = set()
    truths = known_truths(_counted(read_rows(results), counts, labels), labels)
    if not counts:
        raise UsageError(f"{results} has no rows.", hint="Name another file that `sightline score` wrote.")
    chosen = heapq.nsmallest(limit, read_rows(results), key=_certainty)
    confusion: Counter[tuple[str, str]] = Counter()
    for row in read_rows(results):
        truth = truths.of(row.path, row.truth)
        if truth and row.status == OK:
            confusion[truth, row.label] += 1
    return Page(
        Path(results).name,
        chosen,
        [truths.of(row.path, row.truth) for row in chosen],
        sum(counts.values()),
        sorted(counts.items()),
        sorted(labels.union(counts) - {""}),
        [(truth, label, count) for (truth, label), count in sorted(confusion.items())],
    )


def thumbnails(rows: Sequence[Row], archive_encoding: str | None = None) -> list[str]:
    """Make a data URL for each row, "" where its picture can no longer be read."""
    with PictureReader(archive_encoding) as reader, ThreadPoolExecutor() as pool:
        return list(pool.map(lambda row: thumbnail(row.path, reader), rows))


def thumbnail(path: str, reader: PictureReader) -> str:
    """Make a small JPEG of a picture, as a data URL; "" where it cannot be read."""
    try:
        image = Image.fromarray(decode_image(reader.read(path), ImageLimits()))
    except (SightlineError, BadImage):
        return ""
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def rendered(page: Page, images: Sequence[str]) -> str:
    """Write the page as HTML."""
    rows = [_entry(row, truth, image) for row, truth, image in zip(page.rows, page.truths, images, strict=True)]
    data = {
        "rows": rows,
        "labels": page.labels,
        "total": page.total,
        "counts": page.counts,
        "confusion": page.confusion,
    }
    template = files("clients.batch").joinpath(TEMPLATE).read_text(encoding="utf-8")
    return template.replace(TITLE_MARK, html.escape(page.title)).replace(DATA_MARK, script_json(data))


def script_json(data: Any) -> str:
    """Write JSON that cannot end the script element around it."""
    text = json.dumps(data, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _counted(rows: Iterable[Row], counts: Counter[str], labels: set[str]) -> Iterator[tuple[str, str]]:
    """Yield (path, truth) of each row, and on the way count the rows of each label and collect all labels."""
    for row in rows:
        labels.update(entry[0] for entry in row.top)
        counts[row.label if row.status == OK else ""] += 1
        yield row.path, row.truth


def _certainty(row: Row) -> float:
    """0-1; failed rows come first."""
    return -1.0 if row.status != OK or row.score is None else row.score


def _entry(row: Row, truth: str, image: str) -> dict[str, Any]:
    return {
        "path": row.path,
        "file": os.path.abspath(row.path)
        if os.path.isfile(existing_path(row.path))
        else row.path,  # what corrections name
        "label": row.label,
        "id": row.label_id,
        "score": row.score,
        "top": row.top,
        "error": f"{row.error_code}: {row.error}" if row.status != OK else "",
        "truth": truth,
        "image": image,
    }
