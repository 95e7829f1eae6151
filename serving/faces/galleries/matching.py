"""Exact nearest-neighbour search among millions of faces: one matrix product over float32 in memory.

|a - q|^2 = |a|^2 - 2 a.q + |q|^2, so one product with a query gives all distances at the speed of memory (512 bytes a
face). The product rounds: its error of |a - q|^2 is below ERROR. Everything within twice that of the k-th best is
therefore measured again as |a - q|, so the answer is the same as with that formula alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from serving.faces.face import ENCODING_SIZE, Encodings

BLOCK = 32_768  # rows; 16 MB. Memory grows block by block, so nothing is copied to make room
ERROR = 1e-5  # of a squared distance; 128 products of numbers below 1 in float32 stay under 4e-6
FEW = 64  # candidates to measure again, at least
NOBODY = -1
THREADS = 2  # of one search; two use nearly all of the memory bandwidth
STRIPED = 8  # blocks; with fewer, one thread is faster

Floats = npt.NDArray[np.float32]
Numbers = Sequence[int] | npt.NDArray[np.int64]


@dataclass(slots=True)
class _Block:
    rows: Floats = field(default_factory=lambda: np.zeros((BLOCK, ENCODING_SIZE), np.float32))
    # |a|^2; infinite in free slots, so that they are never near
    squares: Floats = field(default_factory=lambda: np.full(BLOCK, np.inf, np.float32))
    faces: npt.NDArray[np.int64] = field(default_factory=lambda: np.full(BLOCK, NOBODY, np.int64))
    people: npt.NDArray[np.int64] = field(default_factory=lambda: np.full(BLOCK, NOBODY, np.int64))


class ExactIndex:
    """Encodings of faces, each with the id of its face and of its person. Not thread-safe: the owner locks."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._free: list[int] = []  # slots (block * BLOCK + row) of removed faces
        self._used = 0  # slots ever taken
        self._threads = ThreadPoolExecutor(THREADS, "faces-scan")  # its threads start at the first use

    def __len__(self) -> int:
        return self._used - len(self._free)

    def add(self, faces: Numbers, people: Numbers, encodings: Encodings) -> None:
        """Add faces that are not in the index: ids, person ids, and encodings, float32 (n, 128)."""
        ids, owners = np.asarray(faces, np.int64), np.asarray(people, np.int64)
        start = 0
        for number, rows, count in self._take(len(ids)):
            block, part = self._blocks[number], slice(start, start + count)
            block.rows[rows] = encodings[part]
            block.squares[rows] = np.einsum("ij,ij->i", encodings[part], encodings[part])
            block.faces[rows], block.people[rows] = ids[part], owners[part]
            start += count

    def remove(self, faces: Iterable[int]) -> None:
        """Remove faces and overwrite their encodings; unknown ids are ignored."""
        gone = np.fromiter(faces, np.int64)
        for number, block in enumerate(self._blocks):
            rows = np.flatnonzero(np.isin(block.faces, gone))
            block.rows[rows], block.squares[rows] = 0, np.inf
            block.faces[rows] = block.people[rows] = NOBODY
            self._free.extend((rows + number * BLOCK).tolist())

    def nearest(self, encodings: Encodings, k: int) -> list[list[tuple[int, float]]]:
        """Find the k nearest persons of each encoding, float32 (n, 128), as (person id, distance), nearest first."""
        return [self._nearest_one(query, k) for query in encodings]

    def _nearest_one(self, query: Floats, k: int) -> list[tuple[int, float]]:
        wanted = max(FEW, 4 * k)
        while True:
            best = self._people_near(query, wanted)
            people = dict(best)  # farthest first, so that each person's nearest face is kept
            if len(people) >= k or len(best) >= len(self):
                return sorted(people.items(), key=lambda pair: (pair[1], pair[0]))[:k]
            wanted *= 8

    def _people_near(self, query: Floats, wanted: int) -> list[tuple[int, float]]:
        """Find at least the `wanted` nearest faces (or all), as (person id, distance), farthest first."""
        slots = self._slots_near(query, wanted)
        rows = np.stack([self._blocks[slot // BLOCK].rows[slot % BLOCK] for slot in slots]) if slots.size else None
        if rows is None:
            return []
        distances = np.linalg.norm(rows.astype(np.float64) - query, axis=1)
        people = [int(self._blocks[slot // BLOCK].people[slot % BLOCK]) for slot in slots]
        order = np.argsort(-distances, kind="stable")
        return [(people[i], float(distances[i])) for i in order]

    def _slots_near(self, query: Floats, wanted: int) -> npt.NDArray[np.int64]:
        """Find the slots of the `wanted` nearest faces and of all that rounding may have ranked behind them."""
        numbers = range(len(self._blocks))
        if len(numbers) < STRIPED:
            return self._scan(numbers, query, wanted)[0]
        stripes = self._threads.map(lambda start: self._scan(numbers[start::THREADS], query, wanted), range(THREADS))
        slots, scores = (np.concatenate(parts) for parts in zip(*stripes, strict=True))
        return slots[scores <= _bound(scores, wanted)]

    def _scan(self, numbers: range, query: Floats, wanted: int) -> tuple[npt.NDArray[np.int64], Floats]:
        """Do `_slots_near` for some blocks; returns the slots and |a|^2 - 2 a.q of each."""
        near, scores = np.zeros(0, np.int64), np.zeros(0, np.float32)
        bound = np.finfo(np.float32).max
        for number in numbers:
            block, used = self._blocks[number], min(BLOCK, self._used - number * BLOCK)
            score = block.rows[:used] @ (query * -2)
            score += block.squares[:used]
            rows = np.flatnonzero(score <= bound)
            near, scores = np.concatenate([near, rows + number * BLOCK]), np.concatenate([scores, score[rows]])
            bound = _bound(scores, wanted)
            near, scores = near[scores <= bound], scores[scores <= bound]
        return near, scores

    def _take(self, count: int) -> Iterator[tuple[int, slice, int]]:
        """Take slots for `count` faces, freed ones first. Yields (block, rows, number of rows)."""
        again = min(count, len(self._free))
        for _ in range(again):
            number, row = divmod(self._free.pop(), BLOCK)
            yield number, slice(row, row + 1), 1
        missing = count - again
        while missing:
            number, row = divmod(self._used, BLOCK)
            if number == len(self._blocks):
                self._blocks.append(_Block())
            fitting = min(missing, BLOCK - row)
            self._used += fitting
            missing -= fitting
            yield number, slice(row, row + fitting), fitting


def _bound(scores: Floats, wanted: int) -> np.float32:
    """Return the largest score that may be among the `wanted` smallest without rounding errors."""
    if len(scores) <= wanted:
        return np.finfo(np.float32).max
    return np.float32(np.partition(scores, wanted - 1)[wanted - 1] + 2 * ERROR)
