"""Compare a prediction's latency alone and beside a stream of face requests, in alternating rounds of one run.

    SIGHTLINE_DATA=... python -m benchmarks.bench_face_latency --models models [--model fashion] [--rounds 4]

Starts `sightline serve` on a folder with a classifier and the model face-encoder. One client requests predictions of
one picture, one after another; in every other round, other clients keep sending photos to /faces/identify. The last
line is the median over rounds of (median beside faces / median alone); at most 1.5 is promised, on two cores.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx

from benchmarks.services import SIGHTLINE, running
from serving.contract.versions import version_dirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="a classifier with golden pictures, face-encoder")
    parser.add_argument("--model", default="fashion")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each half of a round")
    parser.add_argument("--clients", type=int, default=2, help="that send faces")
    asked = parser.parse_args()
    golden = version_dirs(asked.models / asked.model)[-1] / "assets.extra/golden"
    picture = next(path for path in sorted(golden.iterdir()) if path.suffix in (".png", ".jpg")).read_bytes()
    photos = [path.read_bytes() for path in sorted((Path(os.environ["SIGHTLINE_DATA"]) / "faces").rglob("*.*"))]
    with tempfile.TemporaryDirectory() as folder:
        command = (*SIGHTLINE.command, "--preload-faces")
        service = replace(SIGHTLINE, command=command, environ={"SIGHTLINE_FACES_URL": f"sqlite:///{folder}/faces.db"})
        with running(service, asked.models, asked.model, Path(folder)) as it:
            compare(it.url.partition("/predict")[0], asked, picture, photos)


def compare(url: str, asked: argparse.Namespace, picture: bytes, photos: list[bytes]) -> None:
    """Print each round, then the median ratio."""
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        client.post("/faces/identify", content=photos[0], headers={"Content-Type": "image/jpeg"}).raise_for_status()
        latencies(client, asked.model, picture, 2.0)  # warm
        ratios, tails = [], []
        for number in range(asked.rounds):
            alone = latencies(client, asked.model, picture, asked.seconds)
            with Stream(url, photos, asked.clients) as stream:
                beside = latencies(client, asked.model, picture, asked.seconds)
            ratios.append(statistics.median(beside) / statistics.median(alone))
            tails.append(_p95(beside) / _p95(alone))
            print(
                f"round {number + 1}: alone {statistics.median(alone) * 1000:.2f} ms (p95 {_p95(alone) * 1000:.2f}), "
                f"beside {stream.done / asked.seconds:.1f} face photos/s {statistics.median(beside) * 1000:.2f} ms "
                f"(p95 {_p95(beside) * 1000:.2f}): {ratios[-1]:.2f}; load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
    print(f"median ratio {statistics.median(ratios):.2f} (p95 {statistics.median(tails):.2f}), worst {max(ratios):.2f}")


def latencies(client: httpx.Client, model: str, picture: bytes, seconds: float) -> list[float]:
    """Return the seconds of each prediction, one after another."""
    spent, until = [], time.perf_counter() + seconds
    while (started := time.perf_counter()) < until:
        client.post(f"/predict/{model}", content=picture, headers={"Content-Type": "image/png"}).raise_for_status()
        spent.append(time.perf_counter() - started)
    return spent


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


class Stream:
    """Clients that send photos until the block ends. done: photos answered."""

    def __init__(self, url: str, photos: list[bytes], clients: int) -> None:
        self.done = 0
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=(url, photos[n:] + photos[:n])) for n in range(clients)
        ]

    def __enter__(self) -> "Stream":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, url: str, photos: list[bytes]) -> None:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            for photo in itertools.cycle(photos):
                if self._stop.is_set():
                    return
                headers = {"Content-Type": "image/jpeg"}
                client.post("/faces/identify", content=photo, headers=headers).raise_for_status()
                self.done += 1


if __name__ == "__main__":
    main()
