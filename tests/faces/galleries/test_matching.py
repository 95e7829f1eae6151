"""The scan of many blocks, against the plain formula."""

import numpy as np
import pytest

from serving.faces.galleries import matching
from serving.faces.galleries.matching import ExactIndex


@pytest.fixture(params=[16, 64, 32_768])
def index(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ExactIndex:
    """Empty, with blocks so small that a few hundred faces need many, or with those of production."""
    monkeypatch.setattr(matching, "BLOCK", request.param)
    return ExactIndex()


def plain(known: np.ndarray, people: np.ndarray, query: np.ndarray, k: int) -> list[int]:
    distances = np.linalg.norm(known.astype(np.float64) - query, axis=1)
    return list(dict.fromkeys(people[np.argsort(distances, kind="stable")].tolist()))[:k]


def test_nearest_is_the_plain_formulas(index: ExactIndex) -> None:
    rng = np.random.default_rng(3)
    known = rng.normal(0, 0.13, (700, 128)).astype(np.float32)
    people = rng.integers(0, 200, 700)
    for start in range(0, 700, 90):
        part = slice(start, start + 90)
        index.add(range(start, min(700, start + 90)), people[part], known[part])
    queries = rng.normal(0, 0.13, (25, 128)).astype(np.float32)
    for query, found in zip(queries, index.nearest(queries, 6), strict=True):
        assert [person for person, _ in found] == plain(known, people, query, 6)


def test_nearly_equal_faces_keep_their_order(index: ExactIndex) -> None:
    """Differences below the product's rounding are told apart by the plain formula."""
    base = np.full(128, 0.13, np.float32)
    known = np.stack([base] * 300)
    known[:, 0] += np.arange(300, dtype=np.float32)[::-1] * 1e-6
    index.add(range(300), range(300), known)
    (found,) = index.nearest(base[None], 5)
    assert [person for person, _ in found] == [299, 298, 297, 296, 295]


def test_removed_faces_are_overwritten_and_their_room_is_used_again(index: ExactIndex) -> None:
    ones = np.ones((200, 128), np.float32)
    index.add(range(200), range(200), ones)
    index.remove([5, 6, 999])
    assert len(index) == 198
    assert sum(int(block.rows.any(axis=1).sum()) for block in index._blocks) == 198
    index.add([200, 201, 202], [7, 8, 9], np.full((3, 128), 2, np.float32))
    assert len(index) == 201
    assert {person for person, _ in index.nearest(np.full((1, 128), 2, np.float32), 3)[0]} == {7, 8, 9}


def test_empty_index_knows_nobody(index: ExactIndex) -> None:
    assert index.nearest(np.zeros((2, 128), np.float32), 3) == [[], []]
    index.add([1], [1], np.zeros((1, 128), np.float32))
    index.remove([1])
    assert index.nearest(np.zeros((1, 128), np.float32), 3) == [[]]
