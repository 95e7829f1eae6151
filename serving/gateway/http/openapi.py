"""The OpenAPI 3.1 specification, built from the routes. Each route declares its input, its answers and its scope."""

import importlib.metadata
import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from flask import Flask

from serving.contract.errors import (
    Forbidden,
    Overloaded,
    RateLimited,
    SightlineError,
    Unauthenticated,
    Unavailable,
    UploadTooSlow,
)
from serving.gateway.access.keys import RouteScope
from serving.gateway.http import schemas
from serving.gateway.http.errors import content_type, status_of

if TYPE_CHECKING:
    from apispec import APISpec

OPENAPI = "3.1.0"
JSON = "application/json"
WHOLE: Mapping[str, Any] = {"type": "integer", "minimum": 0}
TEXT: Mapping[str, Any] = {"type": "string"}
BYTES: Mapping[str, Any] = {"type": "string", "format": "binary"}
PATHS: Mapping[str, Mapping[str, Any]] = {"version": {**WHOLE, "maximum": 2**63 - 1}}  # other path parameters: text
TAGS = {
    "predict": "Classify images.",
    "models": "The served models.",
    "faces": "Recognize faces, and manage the known people.",
    "v1": "TensorFlow Serving's REST API.",
    "v2": "The Open Inference Protocol.",
    "service": "Health, metrics, and pages for a browser.",
}

KEY_TEXT = "An API key with the scope that the operation names; the scope `admin` includes all others."

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter or a header. schema: the JSON Schema of its value; text: its description."""

    name: str
    schema: Mapping[str, Any]
    text: str
    place: str = "query"


@dataclass(frozen=True, slots=True)
class Operation:
    """The declaration of a route, beside its path, its method and its docstring.

    answer: the JSON of a 200, as a class of `schemas` or a JSON Schema; None where the answer is not JSON.
    scope: the scope that an API key needs, or `open`. None: nobody may call the route.
    body: classes or JSON Schemas by content type; is_required: a request without a body is refused.
    also: other content types of a 200. statuses: other statuses with the same JSON.
    errors: the errors of this route, beyond those of every route. problem: the schema of its errors.
    path, method, name, summary: for a rule that stands for several operations; "": the rule's and the view's own.
    """

    tag: str
    answer: Any
    parameters: Sequence[Parameter] = ()
    body: Mapping[str, Any] | None = None
    is_required: bool = True
    scope: RouteScope | None = None
    also: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()
    errors: tuple[type[SightlineError], ...] = ()
    problem: Any = schemas.Problem
    path: str = ""
    method: str = ""
    name: str = ""
    summary: str = ""


def described(*operations: Operation) -> Callable[[View], View]:
    """Declare a route's operations, below its `@routes...`. They share one scope: it is checked by the view."""
    (scope,) = {operation.scope for operation in operations}

    def mark(view: View) -> View:
        view.operations, view.scope = operations, scope  # type: ignore[attr-defined]
        return view

    return mark


def scope_of(view: object) -> RouteScope | None:
    """Return the scope that a view declares; None where it declares none."""
    scope: RouteScope | None = getattr(view, "scope", None)
    return scope


def version_of_sightline() -> str:
    """Return the installed version."""
    try:
        return importlib.metadata.version("sightline-serving")
    except importlib.metadata.PackageNotFoundError:  # run from source
        return "unknown"


def specification(app: Flask, *, has_keys: bool, pause: Callable[[float], object] | None = None) -> dict[str, Any]:
    """Build the document, in JSON types. has_keys: requests need an API key. pause: lets others run, for 0 seconds."""
    from apispec import APISpec  # slow to import, and rarely needed

    spec = APISpec(
        "Sightline",
        version_of_sightline(),
        OPENAPI,
        info={"summary": "Image classifiers: send a picture, get its label."},
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        servers=[{"url": "/"}],
    )
    if has_keys:
        spec.components.security_scheme("key", {"type": "http", "scheme": "bearer", "description": KEY_TEXT})
    for route in _routes(app):
        if pause is not None:
            pause(0)
        spec.path(route.path, operations={route.method: _described(spec, route, has_keys)})
    return spec.to_dict()


def undescribed(app: Flask) -> list[str]:
    """Return the routes without a declaration; there should be none."""
    return [str(rule) for rule in app.url_map.iter_rules() if not getattr(_view(app, rule), "operations", ())]


def _view(app: Flask, rule: Any) -> Any:
    return app.view_functions[rule.endpoint]


@dataclass(frozen=True, slots=True)
class _Route:
    """One operation. name: its view's. text: its documentation; the first line is the summary."""

    path: str
    method: str
    name: str
    text: str
    operation: Operation


def _routes(app: Flask) -> Iterable[_Route]:
    """List all operations, without aliases."""
    seen = set()
    for rule in app.url_map.iter_rules():
        view = _view(app, rule)
        methods = (rule.methods or set()) - {"HEAD", "OPTIONS"}
        for operation in getattr(view, "operations", ()):
            path = operation.path or re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule)
            method = (operation.method or next(iter(methods))).lower()
            if rule.defaults or (path, method) in seen:  # /people/ without a name, /V1 beside /v1
                continue
            seen.add((path, method))
            yield _Route(
                path,
                method,
                operation.name or rule.endpoint,
                operation.summary or inspect.getdoc(view) or "",
                operation,
            )


def _described(spec: "APISpec", route: _Route, has_keys: bool) -> dict[str, Any]:
    operation = route.operation
    summary, _, rest = route.text.partition("\n")
    described_as: dict[str, Any] = {
        "tags": [operation.tag],
        "operationId": _operation_id(route),
        "summary": summary.strip(),
        **({"description": rest.strip()} if rest.strip() else {}),
        "parameters": [
            *(_path_parameter(part) for part in re.findall(r"\{(\w+)\}", route.path)),
            *(_parameter(parameter) for parameter in operation.parameters),
        ],
        "responses": _responses(spec, route, has_keys),
    }
    if operation.body is not None:
        content = {kind: {"schema": _schema(spec, schema)} for kind, schema in operation.body.items()}
        described_as["requestBody"] = {"required": operation.is_required, "content": content}
    if has_keys:
        described_as["security"] = [] if operation.scope == "open" else [{"key": [operation.scope]}]
    return described_as


def _operation_id(route: _Route) -> str:
    """Return the name of the view or the operation, made unique where it has several paths."""
    by = re.search(r"\{(version|label)\}", route.path)
    return re.sub(r"\W+", "_", f"{route.name} of {by[1]}" if by else route.name)


def _responses(spec: "APISpec", route: _Route, has_keys: bool) -> dict[str, Any]:
    operation = route.operation
    content = {kind: {"schema": dict(TEXT)} for kind in operation.also}
    if operation.answer is not None:
        content[JSON] = {"schema": _schema(spec, operation.answer)}
    responses: dict[str, Any] = {
        str(status): {"description": "The answer." if status == 200 else "Not ready.", "content": content}
        for status in (200, *operation.statuses)
    }
    refused = (Unauthenticated, Forbidden) if has_keys else ()
    guarded = () if operation.scope == "open" else (Overloaded, RateLimited, *refused)
    received = () if route.method == "get" else (UploadTooSlow,)
    by_status: dict[int, list[type[SightlineError]]] = defaultdict(list)
    for kind in dict.fromkeys((*operation.errors, *guarded, *received, SightlineError)):
        by_status[status_of(kind(""))].append(kind)
    for status, kinds in sorted(by_status.items()):
        answer = {
            "description": "; ".join(f"`{kind.code}`: {kind.title}" for kind in kinds),
            "content": {content_type(route.path): {"schema": _schema(spec, operation.problem)}},
        }
        if any(issubclass(kind, Unavailable) for kind in kinds):
            answer["headers"] = {"Retry-After": {"schema": dict(WHOLE), "description": "Seconds."}}
        if str(status) in responses:  # a 503 with `ready: false`
            answer["content"] = {
                JSON: {"schema": {"anyOf": [_schema(spec, operation.answer), _schema(spec, operation.problem)]}}
            }
        responses[str(status)] = answer
    return responses


def _schema(spec: "APISpec", schema: Any) -> dict[str, Any]:
    """Return a JSON Schema. A class becomes a component and a reference to it."""
    if isinstance(schema, Mapping):
        return dict(schema)
    from pydantic import TypeAdapter

    document = TypeAdapter(schema).json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
    for name, part in document.pop("$defs", {}).items():
        _component(spec, name, part)
    name = getattr(schema, "__name__", None)
    if name is None or "properties" not in document:  # a union, a list
        return document
    _component(spec, name, document)
    return {"$ref": f"#/components/schemas/{name}"}


def _component(spec: "APISpec", name: str, schema: dict[str, Any]) -> None:
    if name not in spec.components.schemas:
        spec.components.schema(name, schema)


def _path_parameter(name: str) -> dict[str, Any]:
    schema = PATHS.get(name, {**TEXT, "minLength": 1})
    return {"name": name, "in": "path", "required": True, "schema": dict(schema)}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": False,
        "description": parameter.text,
        "schema": dict(parameter.schema),
    }
