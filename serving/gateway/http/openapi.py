"""The specification: OpenAPI 3.1, out of the routes themselves. Each route is marked with what it takes and answers."""

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
from serving.gateway.http import schemas
from serving.gateway.http.errors import content_type, status_of

if TYPE_CHECKING:
    from apispec import APISpec

OPENAPI = "3.1.0"
JSON = "application/json"
WHOLE: Mapping[str, Any] = {"type": "integer", "minimum": 0}
TEXT: Mapping[str, Any] = {"type": "string"}
BYTES: Mapping[str, Any] = {"type": "string", "format": "binary"}
PATHS: Mapping[str, Mapping[str, Any]] = {"version": {**WHOLE, "maximum": 2**63 - 1}}  # other parts of a path: text
TAGS = {
    "predict": "Pictures in, labels out.",
    "models": "What is served.",
    "faces": "Who is in the picture, and the known set.",
    "v1": "TensorFlow Serving's REST API.",
    "v2": "The Open Inference Protocol.",
    "service": "Health, numbers, and what one reads with a browser.",
}

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter or a header. schema: JSON Schema of its value; text: what it means."""

    name: str
    schema: Mapping[str, Any]
    text: str
    place: str = "query"


@dataclass(frozen=True, slots=True)
class Operation:
    """What the specification says of a route beside its path, its method and its docstring.

    answer: a class of `schemas`, or a JSON Schema, of the JSON that it answers with 200; None where it is no JSON.
    body: JSON Schemas or classes by content type; is_required: whether there must be one.
    also: other content types of the 200. statuses: other statuses that answer the same JSON.
    errors: what it raises, beside what every route may. is_open: no key is ever needed, no slot is taken.
    problem: the schema of its errors.
    path, method, name, summary: where one rule stands for several operations; "": the rule's and the view's own.
    """

    tag: str
    answer: Any
    parameters: Sequence[Parameter] = ()
    body: Mapping[str, Any] | None = None
    is_required: bool = True
    also: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()
    errors: tuple[type[SightlineError], ...] = ()
    is_open: bool = False
    problem: Any = schemas.Problem
    path: str = ""
    method: str = ""
    name: str = ""
    summary: str = ""


def described(*operations: Operation) -> Callable[[View], View]:
    """Say what a route takes and answers: below its `@routes...`."""

    def mark(view: View) -> View:
        view.operations = operations  # type: ignore[attr-defined]
        return view

    return mark


def version_of_sightline() -> str:
    """The version that is installed."""
    try:
        return importlib.metadata.version("sightline-serving")
    except importlib.metadata.PackageNotFoundError:  # run from its source
        return "unknown"


def specification(app: Flask, *, has_keys: bool) -> dict[str, Any]:
    """The whole document, as JSON's types. has_keys: requests want an API key."""
    from apispec import APISpec  # only where somebody asks for the document

    spec = APISpec(
        "Sightline",
        version_of_sightline(),
        OPENAPI,
        info={"summary": "Image classifiers: send a picture, get its label."},
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        servers=[{"url": "/"}],
    )
    if has_keys:
        spec.components.security_scheme("key", {"type": "http", "scheme": "bearer"})
    for route in _routes(app):
        spec.path(route.path, operations={route.method: _described(spec, route, has_keys)})
    return spec.to_dict()


def undescribed(app: Flask) -> list[str]:
    """The routes that say nothing of themselves: there should be none."""
    return [str(rule) for rule in app.url_map.iter_rules() if not getattr(_view(app, rule), "operations", ())]


def _view(app: Flask, rule: Any) -> Any:
    return app.view_functions[rule.endpoint]


@dataclass(frozen=True, slots=True)
class _Route:
    """Something that can be asked. name: of its view. text: what it does, the first line a summary."""

    path: str
    method: str
    name: str
    text: str
    operation: Operation


def _routes(app: Flask) -> Iterable[_Route]:
    """Everything that can be asked, aliases left out."""
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
        described_as["security"] = [] if operation.is_open else [{"key": []}]
    return described_as


def _operation_id(route: _Route) -> str:
    """The view's name, or the operation's, told apart where it answers at several paths."""
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
    guarded = (
        () if operation.is_open else (Overloaded, RateLimited, *((Unauthenticated, Forbidden) if has_keys else ()))
    )
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
        if str(status) in responses:  # a 503 that says `ready: false`
            answer["content"] = {
                JSON: {"schema": {"anyOf": [_schema(spec, operation.answer), _schema(spec, operation.problem)]}}
            }
        responses[str(status)] = answer
    return responses


def _schema(spec: "APISpec", schema: Any) -> dict[str, Any]:
    """A JSON Schema; a class becomes a component, and a reference to it."""
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
