"""Measure a gateway worker's memory over many requests of every kind, good and bad: it must not grow.

    python -m benchmarks.bench_gateway_memory --requests 20000

One gunicorn worker; a model server whose answers cost nothing; pictures in several formats and with colour profiles;
bodies and paths of random bytes. Prints the worker's resident memory on the way, and counts answers by status.
Linux only: it reads /proc.
"""

import argparse
import contextlib
import http.client
import io
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.services import ROOT, free_port
from serving.__main__ import MALLOC
from tests.backend.color_server import ColorServer, serving
from tests.contract.icc import DISPLAY_P3, rgb_profile

CLIENTS = 8
WARM = 0.1  # of the requests; from then on memory should stay
STEPS = 10
FORM = "multipart/form-data; boundary=b"
Sent = tuple[str, str, str, bytes]  # method, path, content type, body


def pictures() -> list[bytes]:
    """Encode a small picture in every format that this Pillow writes."""
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((320, 240))
    made = []
    for kind, options in [
        *((kind, {}) for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF")),
        ("JPEG", {"icc_profile": rgb_profile(DISPLAY_P3)}),
    ]:
        file = io.BytesIO()
        with contextlib.suppress(KeyError):  # HEIF without its extra
            image.save(file, kind, **options)
            made.append(file.getvalue())
    return made


def requests(seed: int, files: list[bytes]) -> Iterator[Sent]:
    """Yield requests for ever, three good ones in four."""
    dice = random.Random(seed)
    while True:
        picture = dice.choice(files)
        noise = dice.randbytes(dice.randrange(3000))
        cut = picture[: dice.randrange(len(picture))]
        part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
        good: list[Sent] = [
            ("POST", "/predict/colors", "image/png", picture),
            ("POST", "/predict/colors?input=png&probabilities=all", "image/png", picture),
            ("POST", "/predict/colors", FORM, part + picture + b"\r\n" + part + noise + b"\r\n--b--\r\n"),
            ("GET", dice.choice(["/models/colors", "/models", "/metrics", "/openapi.json", "/", "/v2"]), "", b""),
        ]
        bad: list[Sent] = [
            ("POST", "/predict/colors", "image/png", cut),
            ("POST", "/predict/colors", dice.choice(["application/json", FORM, "x/y"]), noise),
            ("POST", f"/{dice.choice(['v1', 'v2'])}/models/colors{dice.choice([':predict', '/infer'])}", "", noise),
            ("GET", f"/{noise[:20].hex()}", "", b""),
        ]
        yield dice.choice(good if dice.random() < 0.75 else bad)


def client(port: int, seed: int, count: int, files: list[bytes], statuses: Counter[int]) -> None:
    """Send `count` requests, one after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for _, (method, path, kind, body) in zip(range(count), requests(seed, files), strict=False):
        headers = {"Content-Type": kind} if kind else {}
        connection.request(method, path, body if method == "POST" else None, headers)
        answer = connection.getresponse()
        answer.read()
        statuses[answer.status] += 1
    connection.close()


def resident(pid: int) -> float:
    """MB of memory that a process has in RAM, shared libraries included."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1000


@contextlib.contextmanager
def gateway(backend: str) -> Iterator[tuple[int, int]]:
    """Run gunicorn with one worker. Yields its port and the worker's process id."""
    port = free_port()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SIGHTLINE_", "PROMETHEUS_"))}
    environ |= MALLOC | {"SIGHTLINE_PORT": str(port), "SIGHTLINE_BACKEND": backend, "SIGHTLINE_WORKERS": "1"}
    command = [sys.executable, "-m", "gunicorn", "--config", "serving/gateway/gunicorn/gunicorn.conf.py"]
    process = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.2)
        listing = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
        yield port, int(listing.stdout.split()[0])
    finally:
        process.terminate()
        process.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    count = parser.parse_args().requests
    statuses: Counter[int] = Counter()
    files, seen = pictures(), list[float]()
    with serving(ColorServer()) as backend, gateway(backend) as (port, pid):
        print(f"0 requests: {resident(pid):.1f} MB")
        for step in range(STEPS):
            each = count // STEPS // CLIENTS
            arguments = [(port, step * CLIENTS + number, each, files, statuses) for number in range(CLIENTS)]
            threads = [threading.Thread(target=client, args=given) for given in arguments]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            seen.append(resident(pid))
            print(f"{(step + 1) * each * CLIENTS} requests: {seen[-1]:.1f} MB", flush=True)
    warm = seen[round(STEPS * WARM) - 1]
    print(f"growth since {WARM:.0%} of them: {seen[-1] / warm - 1:+.1%}; answers: {dict(sorted(statuses.items()))}")


if __name__ == "__main__":
    main()
