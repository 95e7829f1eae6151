"""An HTTP server that is no Sightline of this version: a proxy's page, a newer service's problem."""

from http.server import BaseHTTPRequestHandler
from typing import ClassVar


class Canned(BaseHTTPRequestHandler):
    """Answers each path with its bytes."""

    answers: ClassVar = {
        "/models": (200, "text/html", b"<html>hello</html>"),
        "/models/newer": (409, "application/problem+json", b'{"code": "brand_new", "detail": "well", "hint": "wait"}'),
        "/models/proxy": (502, "text/html", b"<html>bad gateway</html>"),
        "/models/odd": (200, "application/json", b'{"name": "odd", "versions": [], "card": {"a": 1}}'),
    }

    def do_GET(self) -> None:
        status, kind, body = self.answers[self.path]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
