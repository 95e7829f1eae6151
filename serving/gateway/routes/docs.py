"""GET /openapi.json and GET /docs: the specification, for programs and for people."""

import functools
from pathlib import Path

from flask import Blueprint, Response, current_app

from serving.gateway.http.openapi import JSON, Operation, described, specification
from serving.gateway.routes.page import HTML, html_page

PAGE = Path(__file__).parents[1] / "docs.html"
DOCUMENT = Operation("service", {"type": "object"}, scope="open")


def blueprint(*, has_keys: bool) -> Blueprint:
    """Make the routes. has_keys: requests need an API key. The document is built at the first request for it."""
    routes = Blueprint("docs", __name__)
    page = html_page(PAGE)

    @functools.cache
    def document() -> str:
        return current_app.json.dumps(specification(current_app, has_keys=has_keys))

    @routes.get("/openapi.json")
    @described(DOCUMENT)
    def openapi() -> Response:
        """Return this specification, OpenAPI 3.1."""
        return Response(document(), content_type=JSON)

    @routes.get("/docs")
    @described(HTML)
    def docs() -> Response:
        """Show the specification in a browser."""
        return page()

    return routes
