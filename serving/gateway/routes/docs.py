"""GET /openapi.json and GET /docs: the specification, for programs and for people."""

import functools
from typing import Any

from flask import Blueprint, Response, current_app, request

from serving.gateway.http.openapi import JSON, Operation, described, specification
from serving.gateway.routes.page import HTML, html_page

DOCUMENT = Operation("service", {"type": "object"}, scope="open")


def blueprint(*, has_keys: bool) -> Blueprint:
    """Make the routes. has_keys: requests need an API key. The document is built at the first request for it."""
    routes = Blueprint("docs", __name__)
    page = html_page("docs.html", {})

    @functools.cache
    def document() -> dict[str, Any]:
        return specification(current_app, has_keys=has_keys)

    @routes.get("/openapi.json")
    @described(DOCUMENT)
    def openapi() -> Response:
        """Return this specification, OpenAPI 3.1."""
        text = current_app.json.dumps({**document(), "servers": [{"url": request.script_root or "/"}]})
        return Response(text, content_type=JSON)

    @routes.get("/docs")
    @described(HTML)
    def docs() -> Response:
        """Show the specification in a browser."""
        return page()

    return routes
