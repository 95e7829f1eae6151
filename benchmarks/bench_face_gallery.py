"""Measure searches of SQLite (in memory) and PostgreSQL over encodings distributed like faces.

    python -m benchmarks.bench_face_gallery [--sizes 10000,1000000] [--postgres postgresql://...]

For each size: seconds to fill it (in chunks, as an import does); seconds to open it in a process of its own, until the
first answer, and its memory; median and 95th percentile of a search for the 5 nearest; how many answers equal the plain
formula in float64. Galleries live in a temporary folder, which is removed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from serving.faces.galleries.gallery import Entry
from serving.faces.galleries.stores import open_store

ENCODER = "bench@1"
CHUNK = 20_000  # entries of one transaction
QUERIES = 60
K = 5
ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,1000000")
    parser.add_argument(
        "--postgres", help="URL of a database that may be written to; its galleries bench-* are dropped"
    )
    parser.add_argument("--measure", nargs=2, metavar=("URL", "SIZE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measured(asked.measure[0], int(asked.measure[1]))))
        return
    for size in (int(text) for text in asked.sizes.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            tell("SQLite", f"sqlite:///{folder}/faces.db", size)
        if asked.postgres:
            tell("PostgreSQL", asked.postgres, size)
            store = open_store(asked.postgres)
            store.drop(f"bench-{size}")
            store.close()


def tell(kind: str, url: str, size: int) -> None:
    """Fill a gallery, measure it in a process of its own, and print one line."""
    store = open_store(url)
    started = time.perf_counter()
    for entries in _chunks(size):
        store.enrol(f"bench-{size}", entries, encoder=ENCODER)
    filled = time.perf_counter() - started
    store.close()
    command = [sys.executable, "-m", "benchmarks.bench_face_gallery", "--measure", url, str(size)]
    environ = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # as the face service: the scan has its own threads
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    print(
        f"{kind} {size:,}: filled in {filled:.0f} s; opened in {told['opened']:.2f} s; search {told['median']:.2f} ms "
        f"(p95 {told['p95']:.2f}); {told['gigabytes']:.2f} GB; exact in {told['exact']} of {QUERIES}",
        flush=True,
    )


def measured(url: str, size: int) -> dict[str, Any]:
    """Measure in this process: seconds to the first answer, milliseconds of searches, GB, number of exact answers."""
    gallery, queries = f"bench-{size}", _queries(size)
    started = time.perf_counter()
    store = open_store(url)
    store.nearest(gallery, queries[:1], K, encoder=ENCODER)
    opened = time.perf_counter() - started
    spent, found = [], []
    for query in queries:
        started = time.perf_counter()
        found.append(store.nearest(gallery, query[None], K, encoder=ENCODER)[0])
        spent.append((time.perf_counter() - started) * 1000)
    store.close()
    gigabytes = _resident()
    exact = sum([each.name for each in row] == _plain(size, query) for row, query in zip(found, queries, strict=True))
    return {
        "opened": opened,
        "median": statistics.median(spent),
        "p95": statistics.quantiles(spent, n=20)[-1],
        "gigabytes": gigabytes,
        "exact": exact,
    }


def _resident() -> float:
    """Return the resident memory of this process, GB, shared pages included."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1e6


def _vectors(start: int, count: int) -> np.ndarray:
    """Make float32 (count, 128), determined by `start`, about as far apart as faces are (0.9)."""
    return np.random.default_rng(start).normal(0, 0.056, (count, 128)).astype(np.float32)


def _chunks(size: int) -> Iterator[list[Entry]]:
    for start in range(0, size, CHUNK):
        vectors = _vectors(start, min(CHUNK, size - start))
        yield [Entry(f"p{start + number}", vector, str(start + number)) for number, vector in enumerate(vectors)]


def _queries(size: int) -> np.ndarray:
    """Half of them near somebody, half of them strangers."""
    rng = np.random.default_rng(1)
    near = _vectors(0, min(CHUNK, size))[: QUERIES // 2]
    near = near + rng.normal(0, 0.03, near.shape)
    return np.concatenate([near, rng.normal(0, 0.056, (QUERIES - len(near), 128))]).astype(np.float32)


def _plain(size: int, query: np.ndarray) -> list[str]:
    """Return the nearest names by the plain formula in float64."""
    near: list[tuple[float, int]] = []
    for start in range(0, size, CHUNK):
        vectors = _vectors(start, min(CHUNK, size - start)).astype(np.float64)
        distances = np.linalg.norm(vectors - query, axis=1)
        best = np.argsort(distances, kind="stable")[:K]
        near += [(float(distances[index]), start + int(index)) for index in best]
    return [f"p{number}" for _, number in sorted(near)[:K]]


if __name__ == "__main__":
    main()
