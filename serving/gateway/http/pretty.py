"""JSON for people: curl at a terminal gets two-space indent, everybody else compact JSON."""

import json

from flask import Flask, Request, Response, request

CURL, ANYTHING = "curl/", "*/*"  # the User-Agent and the Accept that curl sends unless it is told others
PARAMETER = "pretty"  # of the query: `true` or `false`
KEPT = ("/v1/", "/V1/")  # as TensorFlow Serving writes it


def indent_for_people(app: Flask) -> None:
    """Indent the JSON answers to those who read them, errors too."""

    @app.after_request
    def indent(response: Response) -> Response:
        asked: Request = request._get_current_object()  # type: ignore[attr-defined]
        if is_for_people(asked) and is_json(response.mimetype) and not asked.path.startswith(KEPT):
            response.set_data(json.dumps(json.loads(response.get_data()), indent=2, ensure_ascii=False) + "\n")
        return response


def is_for_people(asked: Request) -> bool:
    """The query wishes it, or curl was given no Accept of its own."""
    environ = asked.environ
    if PARAMETER in environ.get("QUERY_STRING", "") and PARAMETER in asked.args:
        return asked.args[PARAMETER] != "false"
    return environ.get("HTTP_USER_AGENT", "").startswith(CURL) and environ.get("HTTP_ACCEPT") == ANYTHING


def is_json(mimetype: str | None) -> bool:
    """`application/json`, or a type built on it such as `application/problem+json`."""
    return mimetype is not None and (mimetype == "application/json" or mimetype.endswith("+json"))
