"""Advise a tolerance for a gallery: compare each of its photos with all others."""

import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from serving.contract.errors import UsageError
from serving.faces.face import Encodings
from serving.faces.galleries.gallery import Entry
from serving.faces.settings import TOLERANCE

SAMPLE = 4_000  # photos to compare at most, drawn evenly; they make 8 million pairs
PAIRS = 10  # most confusable pairs to name
CHUNK = 500  # rows of the table of distances in memory at a time

WIDTH, HEIGHT, MARGIN = 800, 400, 50  # pixels of the histogram
BINS, FARTHEST = 60, 1.5
SAME, OTHER = (46, 160, 67), (207, 34, 46)

Distances = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ConfusablePair:
    """Two persons and the distance between their nearest photos."""

    one: str
    other: str
    distance: float


@dataclass(frozen=True, slots=True)
class Advice:
    """Advice on a gallery's tolerance, from searching each of its photos among all others.

    same: distance of each photo to the nearest other photo of its person, sorted; persons with one photo have none.
    other: distance of each photo to the nearest photo of anybody else, sorted: the distances at which a stranger is
    named. rate: allowed share of strangers who are named, 0-1. tolerance: the largest that keeps to it.
    missed: share of `same` above the tolerance, which it would not recognise; None if `same` is empty.
    """

    people: int
    photos: int
    same: Distances
    other: Distances
    rate: float
    tolerance: float
    missed: float | None
    confusable: tuple[ConfusablePair, ...]

    @property
    def finest_rate(self) -> float:
        """The smallest rate that this many photos can show: 0 of n does not prove less than 1 in n."""
        return 1 / len(self.other)


def advise(entries: Iterable[Entry], rate: float) -> Advice:
    """Find the tolerance for an allowed rate of false matches, 0-1. Raises UsageError for fewer than two persons."""
    held = [(entry.person, entry.encoding) for entry in entries]
    people = sorted({person for person, _ in held})
    if len(people) < 2:
        raise UsageError(
            f"Advice needs at least two persons; the gallery holds {len(people)}.", hint="Enrol more people."
        )
    chosen = np.unique(np.linspace(0, len(held) - 1, min(SAMPLE, len(held))).astype(int))
    owners = np.searchsorted(people, [held[index][0] for index in chosen])
    encodings = np.stack([held[index][1] for index in chosen])
    same, other, nearest = _nearest(encodings, owners)
    tolerance = _tolerance(other, rate)
    return Advice(
        people=len(people),
        photos=len(held),
        same=same,
        other=other,
        rate=rate,
        tolerance=tolerance,
        missed=float((same > tolerance).mean()) if len(same) else None,
        confusable=_confusable(nearest, owners, people),
    )


def histogram(advice: Advice) -> bytes:
    """Draw `same` and `other` as a histogram with the tolerance. Returns a PNG file."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    counts = [np.histogram(values, BINS, (0, FARTHEST))[0] for values in (advice.same, advice.other)]
    shares = [count / max(1, count.sum()) for count in counts]
    scale = (HEIGHT - 2 * MARGIN) / max(share.max() for share in shares)
    step = (WIDTH - 2 * MARGIN) / BINS
    for half, (share, color) in enumerate(zip(shares, (SAME, OTHER), strict=True)):
        for number, height in enumerate(share * scale):
            left = MARGIN + number * step + half * step / 2
            if height > 0:
                draw.rectangle((left, HEIGHT - MARGIN - height, left + step / 2, HEIGHT - MARGIN), fill=color)
    draw.line((MARGIN, HEIGHT - MARGIN, WIDTH - MARGIN, HEIGHT - MARGIN), "black")
    for tick in np.arange(0, FARTHEST + 0.01, 0.25):
        draw.text((_x(tick), HEIGHT - MARGIN + 6), f"{tick:.2f}", "black", font, anchor="mt")
    x = _x(advice.tolerance)
    draw.line((x, MARGIN, x, HEIGHT - MARGIN), "black", 2)
    draw.text((x, MARGIN - 4), f"tolerance {advice.tolerance:.3f}", "black", font, anchor="mb")
    draw.text((MARGIN, 8), "nearest photo of the same person", SAME, font)
    draw.text((WIDTH - MARGIN, 8), "nearest photo of anybody else", OTHER, font, anchor="ra")
    draw.text((WIDTH / 2, HEIGHT - 8), "distance", "black", font, anchor="mb")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _x(distance: float) -> float:
    return float(MARGIN + min(distance, FARTHEST) / FARTHEST * (WIDTH - 2 * MARGIN))


def _nearest(encodings: Encodings, owners: npt.NDArray[np.int64]) -> tuple[Distances, Distances, Distances]:
    """Return `same` and `other` of Advice, and each two persons' distance by their nearest photos, (people, people)."""
    count = len(encodings)
    people = int(owners.max()) + 1
    between = np.full((people, people), np.inf)
    same, other = np.full(count, np.inf), np.full(count, np.inf)
    vectors = encodings.astype(np.float64)
    squares = (vectors**2).sum(axis=1)
    for start in range(0, count, CHUNK):
        rows = slice(start, start + CHUNK)
        squared = squares[rows, None] - 2 * vectors[rows] @ vectors.T + squares
        distances = np.sqrt(np.maximum(squared, 0))
        is_same = owners[rows, None] == owners
        other[rows] = np.where(is_same, np.inf, distances).min(axis=1)
        is_same[np.arange(len(distances)), np.arange(start, start + len(distances))] = False
        same[rows] = np.where(is_same, distances, np.inf).min(axis=1)
        np.minimum.at(between, (owners[rows, None], owners), np.where(owners[rows, None] == owners, np.inf, distances))
    return np.sort(same[np.isfinite(same)]), np.sort(other), between


def _tolerance(other: Distances, rate: float) -> float:
    """Return the largest tolerance at which at most `rate` of the sorted distances are matches.

    It is at most TOLERANCE if there are too few photos to show the rate.
    """
    measured = _measured_tolerance(other, rate)
    return measured if rate * len(other) >= 1 else min(measured, TOLERANCE)


def _measured_tolerance(other: Distances, rate: float) -> float:
    allowed = int(rate * len(other))
    if allowed >= len(other):
        return FARTHEST
    # just below the first distance that must not match, in the three digits shown
    return float(np.floor(other[allowed] * 1000 - 1e-9) / 1000)


def _confusable(between: Distances, owners: npt.NDArray[np.int64], people: list[str]) -> tuple[ConfusablePair, ...]:
    ones, others = np.triu_indices(int(owners.max()) + 1, 1)
    order = np.argsort(between[ones, others], kind="stable")[:PAIRS]
    pairs = ((people[ones[i]], people[others[i]], float(between[ones[i], others[i]])) for i in order)
    return tuple(ConfusablePair(*pair) for pair in pairs if np.isfinite(pair[2]))
