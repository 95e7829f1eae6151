"""GET /: the page where one tries it. One file, without anything from elsewhere."""

import base64
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from flask import Blueprint, Response

from serving.gateway.http.openapi import Operation, described

PAGE = Path(__file__).parents[1] / "page.html"
HTML = Operation("service", None, also=("text/html",), scope="open")


def blueprint() -> Blueprint:
    """The route."""
    routes = Blueprint("page", __name__)
    answer = html_page(PAGE)

    @routes.get("/")
    @described(HTML)
    def page() -> Response:
        """The page where one tries it."""
        return answer()

    return routes


def html_page(path: Path) -> Callable[[], Response]:
    """What answers one file of HTML, read once; its policy lets a browser run the page's own script, nothing else."""
    text = path.read_text("utf-8")
    policy = (
        f"default-src 'none'; script-src {_digest('script', text)}; style-src {_digest('style', text)}; "
        "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    def answer() -> Response:
        headers = {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
        return Response(text, headers=headers, content_type="text/html; charset=utf-8")

    return answer


def _digest(tag: str, text: str) -> str:
    """The source expression of the one inline element: https://www.w3.org/TR/CSP3/#framework-directive-source-list."""
    (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"
