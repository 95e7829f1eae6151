"""The load generator against a server whose answers are known, and what is made of its numbers."""

import io
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from werkzeug.formparser import parse_form_data

from benchmarks.compare import compared
from serving.tuning.load import form, post, quantile, requests_of, run


class Answers(BaseHTTPRequestHandler):
    """Answers by path: /ok; /busy, which refuses every second request; /closing, which ends the connection."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[Counter[bytes]] = Counter()
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Answers.seen[body] += 1
        is_busy = self.path == "/busy" and sum(Answers.seen.values()) % 2
        self.send_response(503 if is_busy else 200)
        if is_busy:
            self.send_header("Retry-After", "0")
        if self.path == "/closing":
            self.send_header("Connection", "close")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Answers.seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_all_bodies_are_sent_in_turn_and_all_answers_counted(url: str) -> None:
    bodies = [b"one", b"two", b"x" * 300_000]
    load = run(f"{url}/ok", [post(f"{url}/ok", body, "image/*") for body in bodies], clients=3, seconds=0.3, warm_up=0)
    assert set(Answers.seen) == set(bodies)
    assert max(Answers.seen.values()) - min(Answers.seen.values()) <= 3
    assert set(load.statuses) == {"200"}
    assert load.statuses["200"] <= sum(Answers.seen.values()) <= load.statuses["200"] + 3
    assert load.per_second == pytest.approx(load.statuses["200"] / load.seconds, rel=0.05)
    assert 0 < load.p50 <= load.p99


def test_refusals_are_counted_apart(url: str) -> None:
    load = run(f"{url}/busy", [post(f"{url}/busy", b"one", "image/*")], clients=2, seconds=0.3, warm_up=0)
    assert load.statuses["200"] == pytest.approx(load.statuses["503"], abs=3)
    assert load.per_second == pytest.approx(load.statuses["200"] / load.seconds, rel=0.05)
    assert 0 < load.refused_p50 <= load.refused_p99


def test_a_server_that_closes_is_connected_to_again(url: str) -> None:
    load = run(f"{url}/closing", [post(f"{url}/closing", b"one", "image/*")], clients=2, seconds=0.3, warm_up=0)
    assert load.statuses["200"] > 2
    assert load.broken == 0


def test_a_form_is_what_werkzeug_reads() -> None:
    body, kind = form([("a.png", b"\r\n--x"), ("b.png", b"")])
    environ = {
        "wsgi.input": io.BytesIO(body),
        "CONTENT_TYPE": kind,
        "CONTENT_LENGTH": str(len(body)),
        "REQUEST_METHOD": "POST",
    }
    found = []
    for file in parse_form_data(environ)[2].getlist("image"):
        with file.stream as stream:
            found.append((file.filename, stream.read()))
    assert found == [("a.png", b"\r\n--x"), ("b.png", b"")]


def test_each_request_of_several_begins_with_another_picture() -> None:
    pictures = [("a", b"AAA"), ("b", b"BBB"), ("c", b"CCC")]
    requests = requests_of("http://h:1/p?top=1", pictures, 2, as_form=True)
    assert [request.index(b"AAA") < request.index(b"BBB") for request in requests[:1]] == [True]
    assert b"AAA" not in requests[1]
    assert all(request.startswith(b"POST /p?top=1 HTTP/1.1\r\nHost: h:1\r\n") for request in requests)


@pytest.mark.parametrize(("values", "share", "expected"), [([], 0.5, 0), ([7], 0.99, 7), (range(100), 0.99, 99)])
def test_a_quantile_is_the_nearest_rank(values: list[float], share: float, expected: float) -> None:
    assert quantile(values, share) == expected


def test_comparing_two_runs_tells_the_ratio_and_marks_noise() -> None:
    def report(rate: float, p99: float) -> dict[str, object]:
        row = {"service": "s", "case": "c", "clients": 8, "per_second": rate, "p99": p99, "spread": 0.1}
        return {"rows": [row], "facts": {"memory": rate}}

    assert "  1.50  9.0, 4.0\n" in compared(report(100, 9), report(150, 4))
    assert "  1.05  9.0, 4.0 (noise)\n" in compared(report(100, 9), report(105, 4))
