"""The routes of TensorFlow Serving's REST API, and each one's work with JSON.

Source: tensorflow_serving/model_servers/http_rest_api_handler.cc and http_rest_api_util.cc.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf import json_format

from serving.backend.methods import CLASSIFY, GET_MODEL_METADATA, GET_MODEL_STATUS, PREDICT, REGRESS
from serving.backend.protos import wire_pb2 as wire
from serving.contract.compression import unpack
from serving.contract.errors import BadRequest, InvalidJson, RequestTooLarge
from serving.contract.executor import Executor, run_inline
from serving.contract.json_body import JsonLimits, json_memory, parse_json, run_sized
from serving.contract.versions import number_of_version
from serving.runtimes.status import STATUS_CODES, CallError, invalid_argument
from serving.tfserving_rest import json_output
from serving.tfserving_rest.backend import Backend
from serving.tfserving_rest.json_input import decode_b64, is_b64, json_text, size_of, tensor_from_json

JSON = "application/json"
DEFAULT_SIGNATURE = "serving_default"
METADATA_FIELD = "signature_def"
TOO_LARGE = 413  # the HTTP status of JSON past a limit
DEFAULT_LIMITS = JsonLimits()

# The HTTP status of a gRPC code; 500 for every other.
HTTP_STATUS = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}

_VERSION = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_INFERENCE = re.compile(rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<method>classify|regress|predict)", re.I | re.A)
_ABOUT = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<metadata>metadata))?", re.I | re.A)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_V1 = re.compile(r"/v1/.*", re.I | re.S)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. model, method (such as `predict` or `status`) and code are for metrics."""

    status: int
    body: bytes
    content_type: str = JSON
    model: str = ""
    method: str = ""
    code: grpc.StatusCode = grpc.StatusCode.OK


@dataclass(slots=True)
class _Call:
    """One request; its parts are filled in as they are read."""

    spec: wire.ModelSpec
    method: str = ""
    body: bytes = b""
    encoding: str = ""
    limits: JsonLimits = DEFAULT_LIMITS
    executor: Executor = run_inline


def answer(
    backend: Backend,
    method: str,
    path: str,
    body: bytes = b"",
    content_encoding: str = "",
    *,
    limits: JsonLimits = DEFAULT_LIMITS,
    executor: Executor = run_inline,
) -> Reply:
    """Answer one request as tensorflow_model_server's REST port would.

    path: as sent, percent-encoded, without the query. content_encoding: `gzip` is undone.
    limits: of the JSON, which TensorFlow Serving does not have; past them the answer is 413.
    executor: parses a large body.
    """
    if not _V1.fullmatch(path):
        return Reply(404, b"Not Found", "text/plain", code=grpc.StatusCode.NOT_FOUND)
    call = _Call(wire.ModelSpec(), body=body, encoding=content_encoding, limits=limits, executor=executor)
    try:
        text = _answer(backend, method, path, call)
    except _UnusableVersion as exc:
        return Reply(400, b"", JSON, code=exc.code)
    except RequestTooLarge as exc:
        text = json.dumps({"error": str(exc)}, indent=4)
        code = grpc.StatusCode.INVALID_ARGUMENT
        return Reply(TOO_LARGE, text.encode(), JSON, call.spec.name, call.method, code)
    except CallError as exc:
        return _refusal(call, exc)
    except RecursionError:
        return _refusal(call, invalid_argument("JSON Parse error: it is nested too deeply"))
    return Reply(200, text.encode("utf-8", "replace"), JSON, call.spec.name, call.method)


def _refusal(call: _Call, error: CallError) -> Reply:
    text = json.dumps({"error": error.message}, indent=4, ensure_ascii=False)
    status = HTTP_STATUS.get(error.code, 500)
    return Reply(status, text.encode("utf-8", "replace"), JSON, call.spec.name, call.method, error.code)


class _UnusableVersion(CallError):
    """TensorFlow Serving answers it with an empty body."""


def _answer(backend: Backend, method: str, path: str, call: _Call) -> str:
    found = _INFERENCE.fullmatch(path) if method == "POST" else _ABOUT.fullmatch(path) if method == "GET" else None
    if found is None:
        raise invalid_argument(f"Malformed request: {method} {path}")
    parts = found.groupdict()
    if parts["name"] is None:
        raise invalid_argument("Missing model name in request.")
    call.spec.CopyFrom(_model_spec(parts))
    call.method = (parts.get("method") or parts.get("metadata") or "status").lower()
    if method == "POST":
        call.body = _decompressed(call)
    return _METHODS[call.method](backend, call)


def _model_spec(parts: dict[str, str | None]) -> wire.ModelSpec:
    spec = wire.ModelSpec(name=unquote(parts["name"] or ""))
    if parts["version"] is not None:
        version = number_of_version(parts["version"])
        if version is None:
            raise _UnusableVersion(
                grpc.StatusCode.INVALID_ARGUMENT, f"Failed to convert version: {parts['version']} to numeric."
            )
        spec.version.value = version
    if parts["label"] is not None:
        spec.version_label = unquote(parts["label"])
    return spec


def _decompressed(call: _Call) -> bytes:
    if call.encoding.lower() != "gzip":
        return call.body
    try:
        return unpack(call.body, "gzip", call.limits.max_json_bytes, "SIGHTLINE_MAX_JSON_BYTES")
    except RequestTooLarge:
        raise
    except BadRequest as exc:
        raise CallError(grpc.StatusCode.DATA_LOSS, exc.detail) from exc


def _status(backend: Backend, call: _Call) -> str:
    response = backend.call(GET_MODEL_STATUS, wire.GetModelStatusRequest(model_spec=call.spec))
    rows = [
        {
            "version": str(row.version),
            "state": wire.ModelVersionStatus.State.Name(row.state),
            "status": {"error_code": _code_name(row.status.error_code), "error_message": row.status.error_message},
        }
        for row in response.model_version_status
    ]
    return json.dumps({"model_version_status": rows}, indent=1)


def _metadata(backend: Backend, call: _Call) -> str:
    response, signatures = _signatures(backend, call.spec)
    document = {
        "model_spec": {
            "name": response.model_spec.name,
            "signature_name": response.model_spec.signature_name,
            "version": str(response.model_spec.version.value),
        },
        "metadata": {METADATA_FIELD: _as_dict(signatures)},
    }
    return json.dumps(document, indent=1)


def _predict(backend: Backend, call: _Call) -> str:
    document = _document(call)
    name = _signature_name(document)
    signature = _signature(backend, call.spec, name or DEFAULT_SIGNATURE)
    request = wire.PredictRequest(model_spec=call.spec)
    request.model_spec.signature_name = name
    has_rows, has_columns = "instances" in document, "inputs" in document
    if has_rows == has_columns:
        both = "Request has both 'inputs' and 'instances' keys, expected one of them"
        raise invalid_argument(both if has_rows else "Missing 'inputs' or 'instances' key")
    dtypes = {alias: info.dtype for alias, info in signature.inputs.items()}
    run = run_sized(call.body, call.executor)
    run(lambda: _fill_inputs(request, document, dtypes), json_memory(call.body))
    outputs = backend.call(PREDICT, request).outputs
    return json_output.outputs_as_rows(outputs) if has_rows else json_output.outputs_as_columns(outputs)


def _fill_inputs(request: wire.PredictRequest, document: dict[str, Any], dtypes: dict[str, wire.DataType]) -> None:
    has_rows = "instances" in document
    tensors = _rows(document["instances"], dtypes) if has_rows else _columns(document["inputs"], dtypes)
    for alias, tensor in tensors.items():
        request.inputs[alias].CopyFrom(tensor)


def _classify(backend: Backend, call: _Call) -> str:
    request = wire.ClassificationRequest(model_spec=call.spec)
    _fill_examples(call, request)
    return json_output.classifications(backend.call(CLASSIFY, request).result)


def _regress(backend: Backend, call: _Call) -> str:
    request = wire.RegressionRequest(model_spec=call.spec)
    _fill_examples(call, request)
    return json_output.regressions(backend.call(REGRESS, request).result)


_METHODS = {
    "predict": _predict,
    "classify": _classify,
    "regress": _regress,
    "status": _status,
    "metadata": _metadata,
}


def _document(call: _Call) -> dict[str, Any]:
    """Parse the body."""
    return run_sized(call.body, call.executor)(lambda: _parsed(call.body, call.limits), json_memory(call.body))


def _parsed(body: bytes, limits: JsonLimits) -> dict[str, Any]:
    if not body.strip():
        raise invalid_argument("JSON Parse error: The document is empty")
    try:
        document = parse_json(body, limits)
    except InvalidJson as exc:
        raise invalid_argument(f"JSON Parse error: {_reason(exc)}") from exc
    if not isinstance(document, dict):
        raise invalid_argument("JSON body must be an object")
    if _SURROGATE.search(body):
        _require_unicode(document)
    return document


def _reason(exc: InvalidJson) -> str:
    cause = exc.__cause__
    if isinstance(cause, json.JSONDecodeError):
        return f"{cause.msg} at offset: {cause.pos}"
    return exc.detail if cause is None else type(cause).__name__


def _require_unicode(document: dict[str, Any]) -> None:
    """Refuse half of a surrogate pair: no string of protobuf can hold it."""
    try:
        json_text(document).encode()
    except UnicodeEncodeError as exc:
        raise invalid_argument("JSON Parse error: The surrogate pair in string is invalid.") from exc


def _signature_name(document: dict[str, Any]) -> str:
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument("'signature_name' key must be a string value.")
    return name


def _signatures(backend: Backend, spec: wire.ModelSpec) -> tuple[wire.GetModelMetadataResponse, wire.SignatureDefMap]:
    request = wire.GetModelMetadataRequest(model_spec=spec, metadata_field=[METADATA_FIELD])
    response = backend.call(GET_MODEL_METADATA, request)
    return response, wire.SignatureDefMap.FromString(response.metadata[METADATA_FIELD].value)


def _signature(backend: Backend, spec: wire.ModelSpec, name: str) -> wire.SignatureDef:
    _, signatures = _signatures(backend, spec)
    if name not in signatures.signature_def:
        raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
    return signatures.signature_def[name]


def _rows(instances: Any, dtypes: dict[str, wire.DataType]) -> dict[str, wire.TensorProto]:
    """`instances`: one entry per row; entries are objects of named values unless the signature has one input."""
    if not isinstance(instances, list):
        raise invalid_argument("Expecting 'instances' value to be a list/array")
    if not instances:
        raise invalid_argument("No values found in 'instances' list: it must hold at least one")
    named = isinstance(instances[0], dict) and not is_b64(instances[0])
    if not named and len(dtypes) != 1:
        raise invalid_argument(
            f"'instances' is a plain list, but expecting list of objects as multiple input tensors required as per "
            f"tensorinfo_map: {', '.join(sorted(dtypes))}"
        )
    if not named:
        ((alias, dtype),) = dtypes.items()
        return {alias: _stacked(instances, dtype, lambda at: f"Failed to process element: {at} of 'instances' list.")}
    for at, instance in enumerate(instances):
        if not isinstance(instance, dict) or set(instance) != set(dtypes):
            raise invalid_argument(
                f"Failed to process element: {at} of 'instances' list. JSON object: {json_text(instance)} "
                f"keys must be equal to: {','.join(sorted(dtypes))}"
            )
    return {alias: _named_rows(instances, alias, dtype) for alias, dtype in dtypes.items()}


def _named_rows(instances: list[Any], alias: str, dtype: wire.DataType) -> wire.TensorProto:
    values = [instance[alias] for instance in instances]
    return _stacked(values, dtype, lambda at: f"Failed to process element: {at} key: {alias} of 'instances' list.")


def _stacked(values: list[Any], dtype: wire.DataType, where: Callable[[int], str]) -> wire.TensorProto:
    """The values as the rows of one tensor; all must have the first one's shape. where: names a row in an error."""
    try:
        return tensor_from_json(values, dtype)
    except CallError:
        first = None
        for at, value in enumerate(values):  # again row by row, to name the wrong one
            try:
                row = tensor_from_json(value, dtype)
                first = first or row
                _require_same_shape(first, row)
            except CallError as exc:
                raise CallError(exc.code, f"{where(at)} Error: {exc}") from exc
        raise


def _require_same_shape(first: wire.TensorProto, row: wire.TensorProto) -> None:
    if size_of(first) != size_of(row):
        raise invalid_argument(f"Expecting tensor size: {size_of(first)} but got: {size_of(row)}")
    wanted, given = ([dim.size for dim in tensor.tensor_shape.dim] for tensor in (first, row))
    if wanted != given:
        raise invalid_argument(f"Expecting tensor shape: {wanted} but got: {given}")


def _columns(inputs: Any, dtypes: dict[str, wire.DataType]) -> dict[str, wire.TensorProto]:
    """`inputs`: whole tensors, by name unless the signature has one input."""
    if not isinstance(inputs, dict) or is_b64(inputs):
        if len(dtypes) != 1:
            raise invalid_argument(
                "'inputs' is a plain value/list, but expecting an object as multiple input tensors required as per "
                f"tensorinfo_map: {', '.join(sorted(dtypes))}"
            )
        ((alias, dtype),) = dtypes.items()
        return {alias: tensor_from_json(inputs, dtype)}
    for alias in dtypes:
        if alias not in inputs:
            raise invalid_argument(f"Missing named input tensor: {alias}")
    unknown = sorted(set(inputs) - set(dtypes))
    if unknown:
        raise invalid_argument(
            f"'inputs' holds unknown names: {','.join(unknown)}; expected: {','.join(sorted(dtypes))}"
        )
    return {alias: tensor_from_json(inputs[alias], dtype) for alias, dtype in dtypes.items()}


def _fill_examples(call: _Call, request: Any) -> None:
    """Turn `examples` and `context` of the body into tf.Examples."""
    document = _document(call)
    request.model_spec.signature_name = _signature_name(document)
    examples = document.get("examples")
    if "examples" not in document:
        raise invalid_argument(f"When method is {call.method}, key 'examples' is expected and was not found")
    if not isinstance(examples, list) or not examples:
        raise invalid_argument("Example is either not a list or is empty: 'examples' value must be a non-empty list")
    if "context" in document:
        into = request.input.example_list_with_context
        _fill_example(document["context"], into.context)
    else:
        into = request.input.example_list
    for example in examples:
        _fill_example(example, into.examples.add())


def _fill_example(value: Any, example: wire.Example) -> None:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON Value: {json_text(value)}")
    example.features.SetInParent()
    for name, given in value.items():
        _fill_feature(name, given if isinstance(given, list) else [given], example.features.feature[name])


def _fill_feature(name: str, values: list[Any], feature: wire.Feature) -> None:
    """Integers become int64, decimals float, strings and b64 bytes; a list holds one kind only."""
    for value in values:
        if is_b64(value):
            feature.bytes_list.value.append(decode_b64(value))
        elif isinstance(value, str):
            feature.bytes_list.value.append(value.encode())
        elif isinstance(value, int) and not _holds(feature, "float_list"):
            feature.int64_list.value.append(_int64(name, int(value)))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            if _holds(feature, "int64_list"):
                raise _mixed(name)
            feature.float_list.value.append(value)
        else:
            raise invalid_argument(
                f"Feature: {name} JSON Value: {json_text(value)} is not a number, a string or a b64 object"
            )
    if len(values) != sum(len(part.value) for part in (feature.bytes_list, feature.float_list, feature.int64_list)):
        raise _mixed(name)


def _int64(name: str, value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise invalid_argument(f"Feature: {name} JSON Value: {value} does not fit into int64")
    return value


def _holds(feature: wire.Feature, kind: str) -> bool:
    return bool(feature.WhichOneof("kind") == kind)


def _mixed(name: str) -> CallError:
    return invalid_argument(f"Unexpected element type change for feature: {name}: a list holds values of one kind")


def _as_dict(message: Any) -> dict[str, Any]:
    converted: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return converted


def _code_name(code: int) -> str:
    return STATUS_CODES[code].name if code in STATUS_CODES else str(code)
