"""GET /: the page to try the service, one file that loads nothing from other hosts."""

import base64
import hashlib
import html
import re
from collections.abc import Callable
from pathlib import Path

from flask import Blueprint, Response, request

from serving.gateway.http.openapi import Operation, described

PAGE = Path(__file__).parents[1] / "page.html"
HTML = Operation("service", None, also=("text/html",), scope="open")


def blueprint() -> Blueprint:
    """Make the route."""
    routes = Blueprint("page", __name__)
    answer = html_page(PAGE)

    @routes.get("/")
    @described(HTML)
    def page() -> Response:
        """Show the page to try the service."""
        return answer()

    return routes


def html_page(path: Path) -> Callable[[], Response]:
    """Make a handler for one HTML file. Its policy allows the page's own script and style only.

    Behind a proxy with a path the page names it as its base: relative links hold even where the address has no slash at
    its end.
    """
    text = path.read_text("utf-8")
    policy = (
        f"default-src 'none'; script-src {_digest('script', text)}; style-src {_digest('style', text)}; "
        "img-src 'self' blob: data:; connect-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
    )

    def answer() -> Response:
        headers = {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
        root = request.script_root
        page = text.replace("<head>", f'<head>\n<base href="{html.escape(root)}/">', 1) if root else text
        return Response(page, headers=headers, content_type="text/html; charset=utf-8")

    return answer


def _digest(tag: str, text: str) -> str:
    """Return the source expression of the one inline element: https://www.w3.org/TR/CSP3/#framework-directive-source-list."""
    (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"
