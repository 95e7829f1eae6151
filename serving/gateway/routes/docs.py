"""GET /openapi.json and GET /docs: the specification, for programs and for people. Nothing comes from elsewhere."""

import functools
from pathlib import Path

from flask import Blueprint, Response, current_app

from serving.gateway.http.openapi import JSON, Operation, described, specification
from serving.gateway.routes.page import HTML, html_page

PAGE = Path(__file__).parents[1] / "docs.html"
DOCUMENT = Operation("service", {"type": "object"}, scope="open")


def blueprint(*, has_keys: bool) -> Blueprint:
    """The routes. has_keys: requests want an API key. The document is made when it is first asked for."""
    routes = Blueprint("docs", __name__)
    page = html_page(PAGE)

    @functools.cache
    def document() -> str:
        return current_app.json.dumps(specification(current_app, has_keys=has_keys))

    @routes.get("/openapi.json")
    @described(DOCUMENT)
    def openapi() -> Response:
        """This specification: OpenAPI 3.1."""
        return Response(document(), content_type=JSON)

    @routes.get("/docs")
    @described(HTML)
    def docs() -> Response:
        """The specification, to read."""
        return page()

    return routes
