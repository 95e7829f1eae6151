"""The nearest of a million faces, exactly: one matrix product over float32 in memory.

|a - q|^2 = |a|^2 - 2 a.q + |q|^2, so one product with a query gives every distance, at the speed at which memory can
be read (512 bytes a face). The product rounds: its error on |a - q|^2 is below ERROR, so whatever comes within twice
that of the k-th best is measured again by the plain formula. The answer is therefore that of the plain formula.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from serving.faces.face import ENCODING_SIZE, Encodings

BLOCK = 32_768  # rows; 16 MB. Memory grows by one block, so nothing is ever copied to make room
ERROR = 1e-5  # of a squared distance; 128 products of numbers below 1 in float32 stay under 4e-6
FEW = 64  # candidates that are always measured again
NOBODY = -1
THREADS = 2  # that scan together; two read memory nearly as fast as it goes
STRIPED = 8  # blocks; below it one thread is quicker

Floats = npt.NDArray[np.float32]
Numbers = Sequence[int] | npt.NDArray[np.int64]


@dataclass(slots=True)
class _Block:
    rows: Floats = field(default_factory=lambda: np.zeros((BLOCK, ENCODING_SIZE), np.float32))
    # |a|^2; infinite where there is no face, so that it is never near
    squares: Floats = field(default_factory=lambda: np.full(BLOCK, np.inf, np.float32))
    faces: npt.NDArray[np.int64] = field(default_factory=lambda: np.full(BLOCK, NOBODY, np.int64))
    people: npt.NDArray[np.int64] = field(default_factory=lambda: np.full(BLOCK, NOBODY, np.int64))


class ExactIndex:
    """Encodings by face id, each of a person id. Not safe between threads: the owner locks."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._free: list[int] = []  # slots (block * BLOCK + row) that were given back
        self._used = 0  # slots that were ever taken
        self._threads = ThreadPoolExecutor(THREADS, "faces-scan")  # started when first used

    def __len__(self) -> int:
        return self._used - len(self._free)

    def add(self, faces: Numbers, people: Numbers, encodings: Encodings) -> None:
        """Add encodings, float32 (n, 128), of faces that are not there yet."""
        ids, owners = np.asarray(faces, np.int64), np.asarray(people, np.int64)
        start = 0
        for number, rows, count in self._take(len(ids)):
            block, part = self._blocks[number], slice(start, start + count)
            block.rows[rows] = encodings[part]
            block.squares[rows] = np.einsum("ij,ij->i", encodings[part], encodings[part])
            block.faces[rows], block.people[rows] = ids[part], owners[part]
            start += count

    def remove(self, faces: Iterable[int]) -> None:
        """Forget encodings and overwrite them; unknown ids are nothing."""
        gone = np.fromiter(faces, np.int64)
        for number, block in enumerate(self._blocks):
            rows = np.flatnonzero(np.isin(block.faces, gone))
            block.rows[rows], block.squares[rows] = 0, np.inf
            block.faces[rows] = block.people[rows] = NOBODY
            self._free.extend((rows + number * BLOCK).tolist())

    def nearest(self, encodings: Encodings, k: int) -> list[list[tuple[int, float]]]:
        """For each encoding, float32 (n, 128), the k nearest persons as (person id, distance), nearest first."""
        return [self._nearest_one(query, k) for query in encodings]

    def _nearest_one(self, query: Floats, k: int) -> list[tuple[int, float]]:
        wanted = max(FEW, 4 * k)
        while True:
            best = self._people_near(query, wanted)
            people = dict(best)  # farthest first, so that of a person's faces the nearest stays
            if len(people) >= k or len(best) >= len(self):
                return sorted(people.items(), key=lambda pair: (pair[1], pair[0]))[:k]
            wanted *= 8

    def _people_near(self, query: Floats, wanted: int) -> list[tuple[int, float]]:
        """At least `wanted` faces (all, where there are fewer) that are nearest, farthest first."""
        slots = self._slots_near(query, wanted)
        rows = np.stack([self._blocks[slot // BLOCK].rows[slot % BLOCK] for slot in slots]) if slots.size else None
        if rows is None:
            return []
        distances = np.linalg.norm(rows.astype(np.float64) - query, axis=1)
        people = [int(self._blocks[slot // BLOCK].people[slot % BLOCK]) for slot in slots]
        order = np.argsort(-distances, kind="stable")
        return [(people[i], float(distances[i])) for i in order]

    def _slots_near(self, query: Floats, wanted: int) -> npt.NDArray[np.int64]:
        """The slots of the `wanted` nearest faces, and of all that rounding may have put behind them."""
        numbers = range(len(self._blocks))
        if len(numbers) < STRIPED:
            return self._scan(numbers, query, wanted)[0]
        stripes = self._threads.map(lambda start: self._scan(numbers[start::THREADS], query, wanted), range(THREADS))
        slots, scores = (np.concatenate(parts) for parts in zip(*stripes, strict=True))
        return slots[scores <= _bound(scores, wanted)]

    def _scan(self, numbers: range, query: Floats, wanted: int) -> tuple[npt.NDArray[np.int64], Floats]:
        """`_slots_near` among some blocks, and |a|^2 - 2 a.q of each slot."""
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
        """Room for so many faces as (block, rows, how many): first what was given back, then what is new."""
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
    """The largest score that may still be among the `wanted` smallest once rounding is taken away."""
    if len(scores) <= wanted:
        return np.finfo(np.float32).max
    return np.float32(np.partition(scores, wanted - 1)[wanted - 1] + 2 * ERROR)
