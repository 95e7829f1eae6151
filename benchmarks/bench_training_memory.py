"""Measure the memory of a training on a folder of many photos.

    python -m benchmarks.bench_training_memory [--n 100000]

The folder holds links to a few hundred different pictures (from --photos, or noise), so that it has all its files
without filling the disk. Trains one epoch in a process of its own and prints that process's peak memory.
"""

import argparse
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

DIFFERENT = 200  # photos; the rest are links to them
SIDES = (400, 300)  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of JPEGs to use; they are shrunk to 400 x 300")
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--family", default="vggnet")
    parser.add_argument("--image-size", default="32")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = time.monotonic()
        data = make_folder(Path(folder) / "photos", asked.n, asked.photos)
        print(f"{asked.n:,} files in {time.monotonic() - made:.0f} s", flush=True)
        started = time.monotonic()
        command = [sys.executable, "-m", "export", asked.family, "--data", str(data), "--image-size", asked.image_size]
        subprocess.run(
            [*command, "--epochs", "1", "--out", f"{folder}/models", "--reports", f"{folder}/reports"], check=True
        )
        seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # KiB on Linux
    print(f"{asked.n:,} photos: peak {peak:,.0f} MiB, {seconds:.0f} s")


def make_folder(folder: Path, n: int, photos: Path | None) -> Path:
    """Make a folder of n files in two classes."""
    random = np.random.default_rng(0)
    originals = folder.parent / "originals"
    originals.mkdir(parents=True)
    sources = sorted(photos.rglob("*.jp*g")) if photos else []
    for index in range(DIFFERENT):
        if sources:
            picture = Image.open(sources[index % len(sources)]).convert("RGB").resize(SIDES)
        else:
            picture = Image.fromarray(random.integers(0, 255, (*SIDES[::-1], 3)).astype(np.uint8))
        picture.save(originals / f"{index}.jpg", quality=80)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
    for index, original in zip(range(n), itertools.cycle(sorted(originals.iterdir())), strict=False):
        os.link(original, folder / ("a" if index % 2 else "b") / f"{index:06d}.jpg")
    return folder


if __name__ == "__main__":
    main()
