"""A cheap closed-loop HTTP load generator: one process, one epoll, requests encoded beforehand.

    python -m serving.tuning.load http://127.0.0.1:8000/predict/fashion shoe.png --clients 32 --seconds 5

Each client has one connection and sends the next request as soon as it has its answer. After a 503 it waits as long as
`Retry-After` says, as our clients do; with `--impatient` it retries at once. Standard library only, so that it runs
wherever the service runs: about 20 microseconds of CPU per request.
"""

import argparse
import json
import random
import re
import select
import socket
import sys
import time
import urllib.parse
import uuid
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from heapq import heappop, heappush
from pathlib import Path

RECEIVED_AT_ONCE = 262_144  # bytes
BUSY = 503
OK = range(200, 300)
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
RETRY_AFTER = re.compile(rb"\r\nretry-after: *(\d+)", re.IGNORECASE)
CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Load:
    """The result of a run. Latencies in milliseconds; p50 and p99 of answered (2xx) requests only.

    refused_p50, refused_p99: of requests answered 503. statuses: number of answers by HTTP status. broken: connections
    that ended without an answer. cpu: CPU seconds per second of the generator.
    """

    clients: int
    seconds: float
    per_second: float
    p50: float
    p99: float
    refused_p50: float
    refused_p99: float
    statuses: dict[str, int]
    broken: int
    cpu: float


@dataclass(slots=True, eq=False)
class _Client:
    """One connection. pending: the bytes left to send. is_blocked: the socket's buffer is full. sent_at: seconds."""

    sock: socket.socket
    number: int
    pending: memoryview | None = None
    is_blocked: bool = False
    sent_at: float = 0.0
    received: bytearray = field(default_factory=bytearray)
    wanted: int = -1  # bytes of the whole answer, once its head is there


def post(url: str, body: bytes, content_type: str, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """Encode a POST request."""
    parts = urllib.parse.urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {parts.netloc}",
        *(f"{name}: {value}" for name, value in headers),
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "\r\n"]).encode() + body


def form(files: Sequence[tuple[str, bytes]], field_name: str = "image") -> tuple[bytes, str]:
    """Encode files as multipart/form-data; return the body and its content type."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field_name}"; filename="{name}"\r\n'
        f"Content-Type: application/octet-stream\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files
    ]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"


def requests_of(url: str, pictures: Sequence[tuple[str, bytes]], size: int, *, as_form: bool) -> list[bytes]:
    """Encode requests of `size` images (names and bytes) each: forms, or raw bytes of one image."""
    requests = []
    for start in range(len(pictures)):
        chosen = [pictures[(start + step) % len(pictures)] for step in range(size)]
        body, kind = form(chosen) if as_form else (chosen[0][1], "image/*")
        requests.append(post(url, body, kind))
    return requests


def run(
    url: str,
    requests: Sequence[bytes],
    *,
    clients: int,
    seconds: float,
    warm_up: float = 1.0,
    impatient: bool = False,
) -> Load:
    """Load the server for `warm_up` seconds, which do not count, and then for `seconds`.

    requests: encoded requests (`post`), sent in turn. Raises ConnectionError where no server listens.
    """
    return _Loop(url, requests, impatient).run(clients, warm_up, seconds)


class _Loop:
    def __init__(self, url: str, requests: Sequence[bytes], impatient: bool) -> None:
        parts = urllib.parse.urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._requests = [memoryview(request) for request in requests]
        self._impatient = impatient
        self._epoll = select.epoll()
        self._clients: dict[int, _Client] = {}
        self._waiting: list[tuple[float, int, _Client]] = []  # a heap by the time of the retry
        self._latencies: deque[float] = deque()
        self._refusals: deque[float] = deque()
        self._statuses = Counter[int]()
        self._sent = self._broken = 0

    def run(self, clients: int, warm_up: float, seconds: float) -> Load:
        for number in range(clients):
            self._start(self._connected(number))
        self._drive(time.perf_counter() + warm_up)
        self._latencies.clear()
        self._refusals.clear()
        self._statuses.clear()
        self._broken = 0
        cpu, started = time.process_time(), time.perf_counter()
        self._drive(started + seconds)
        spent = time.perf_counter() - started
        cpu = time.process_time() - cpu
        for client in self._clients.values():
            client.sock.close()
        self._epoll.close()
        return self._summary(clients, spent, cpu)

    def _summary(self, clients: int, spent: float, cpu: float) -> Load:
        ordered, refusals = sorted(self._latencies), sorted(self._refusals)
        return Load(
            clients=clients,
            seconds=round(spent, 2),
            per_second=round(len(ordered) / spent, 1),
            p50=milliseconds(ordered, 0.50),
            p99=milliseconds(ordered, 0.99),
            refused_p50=milliseconds(refusals, 0.50),
            refused_p99=milliseconds(refusals, 0.99),
            statuses={str(status): count for status, count in sorted(self._statuses.items())},
            broken=self._broken,
            cpu=round(cpu / spent, 3),
        )

    def _drive(self, until: float) -> None:
        while (now := time.perf_counter()) < until:
            while self._waiting and self._waiting[0][0] <= now:
                self._start(heappop(self._waiting)[2])
            pause = min(until, self._waiting[0][0] if self._waiting else until) - now
            for number, events in self._epoll.poll(max(0.0, pause)):
                client = self._clients[number]
                if events & select.EPOLLOUT and client.pending is not None:
                    self._send(client)
                elif events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                    self._receive(client)

    def _connected(self, number: int) -> _Client:
        sock = socket.create_connection(self._address)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = self._clients[sock.fileno()] = _Client(sock, number)
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        return client

    def _reconnected(self, client: _Client) -> _Client:
        self._epoll.unregister(client.sock.fileno())
        del self._clients[client.sock.fileno()]
        client.sock.close()
        return self._connected(client.number)

    def _start(self, client: _Client) -> None:
        client.pending = self._requests[self._sent % len(self._requests)]
        self._sent += 1
        client.received.clear()
        client.wanted = -1
        client.sent_at = time.perf_counter()
        self._send(client)

    def _send(self, client: _Client) -> None:
        """Send what the socket takes now, and the rest when it takes more."""
        assert client.pending is not None
        try:
            sent = client.sock.send(client.pending)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lost(client)
            return
        client.pending = client.pending[sent:] if sent < len(client.pending) else None
        if client.is_blocked != (client.pending is not None):
            client.is_blocked = not client.is_blocked
            self._epoll.modify(client.sock.fileno(), select.EPOLLIN | (select.EPOLLOUT if client.is_blocked else 0))

    def _receive(self, client: _Client) -> None:
        try:
            data = client.sock.recv(RECEIVED_AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost(client)
            return
        client.received += data
        if client.wanted < 0:
            head = client.received.find(b"\r\n\r\n")
            if head < 0:
                return
            length = LENGTH.search(client.received, 0, head + 2)
            client.wanted = head + 4 + (int(length[1]) if length else 0)
        if len(client.received) >= client.wanted:
            self._answered(client)

    def _answered(self, client: _Client) -> None:
        now = time.perf_counter()
        status = int(client.received[9:12])
        self._statuses[status] += 1
        if status in OK:
            self._latencies.append(now - client.sent_at)
        elif status == BUSY:
            self._refusals.append(now - client.sent_at)
        again_in = 0.0
        if status == BUSY and not self._impatient:
            given = RETRY_AFTER.search(client.received)
            again_in = (int(given[1]) if given else 1) * random.uniform(0.5, 1.0)
        if CLOSES.search(client.received, 0, client.received.find(b"\r\n\r\n") + 2) or client.pending is not None:
            client = self._reconnected(client)
        if again_in:
            heappush(self._waiting, (now + again_in, client.number, client))
        else:
            self._start(client)

    def _lost(self, client: _Client) -> None:
        """Reconnect after the server closed; count it where an answer was due."""
        is_resting = any(waiting is client for _, _, waiting in self._waiting)
        fresh = self._reconnected(client)
        if is_resting:
            self._waiting = [(at, n, fresh if waiting is client else waiting) for at, n, waiting in self._waiting]
            return
        self._broken += 1
        self._start(fresh)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the quantile by nearest rank; 0 for no values. ordered: ascending."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def milliseconds(ordered: Sequence[float], share: float) -> float:
    """Return the quantile of seconds in milliseconds."""
    return round(quantile(ordered, share) * 1000, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("files", nargs="+", type=Path, help="sent in turn")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm-up", type=float, default=1.0)
    parser.add_argument("--multipart", action="store_true", help="send forms instead of raw bytes")
    parser.add_argument("--pictures", type=int, default=1, help="images per request, with --multipart")
    parser.add_argument("--impatient", action="store_true", help="retry at once after a 503")
    parser.add_argument("--ready-made", action="store_true", help="the one file is a folder of encoded requests")
    options = parser.parse_args()
    if options.ready_made:
        requests = [path.read_bytes() for path in sorted(options.files[0].iterdir())]
    else:
        pictures = [(path.name, path.read_bytes()) for path in options.files]
        requests = requests_of(options.url, pictures, options.pictures, as_form=options.multipart)
    load = run(
        options.url,
        requests,
        clients=options.clients,
        seconds=options.seconds,
        warm_up=options.warm_up,
        impatient=options.impatient,
    )
    json.dump(asdict(load), sys.stdout)
    print()


if __name__ == "__main__":
    main()
