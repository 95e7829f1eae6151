"""GET /openapi.json and GET /docs: the specification, for programs and for people."""

import functools
import threading
from typing import Any

from flask import Blueprint, Response, current_app, request

from serving.gateway.http.openapi import JSON, Operation, described, specification
from serving.gateway.routes.page import HTML, html_page
from serving.gateway.workers.greenlets import pause

DOCUMENT = Operation("service", {"type": "object"}, scope="open")


def blueprint(*, has_keys: bool) -> Blueprint:
    """Make the routes. has_keys: requests need an API key.

    The document is built at the first request for it. As this takes half a second, others run between its parts.
    """
    routes = Blueprint("docs", __name__)
    page = html_page("docs.html", {})

    building = threading.Lock()
    documents: list[dict[str, Any]] = []

    @functools.lru_cache(maxsize=8)  # a proxy names the root
    def body(root: str) -> bytes:
        return current_app.json.dumps({**documents[0], "servers": [{"url": root or "/"}]}).encode()

    @routes.get("/openapi.json")
    @described(DOCUMENT)
    def openapi() -> Response:
        """Return this specification, OpenAPI 3.1."""
        if not documents:
            with building:
                if not documents:
                    documents.append(specification(current_app, has_keys=has_keys, pause=pause()))
        return Response(body(request.script_root), content_type=JSON)

    @routes.get("/docs")
    @described(HTML)
    def docs() -> Response:
        """Show the specification in a browser."""
        return page()

    return routes
