"""Messages of the Open Inference Protocol v2, with Triton's binary tensors.

Source: https://github.com/kserve/open-inference-protocol and Triton's extensions binary_tensor_data and classification.
"""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.contract.base64_text import decode_base64
from serving.contract.card import ModelCard
from serving.contract.dtypes import BY_NUMPY
from serving.contract.errors import BadImage, InvalidBase64, InvalidJson
from serving.contract.executor import Executor
from serving.contract.json_body import JsonLimits, json_memory, parse_json, run_sized
from serving.contract.prediction import top_k
from serving.contract.preprocessing import Tensor
from serving.gateway.http import schemas
from serving.runtimes.status import CallError
from serving.tfserving_rest.json_input import array_from_json

HEADER_LENGTH = "Inference-Header-Content-Length"
PLATFORM = "tensorflow_savedmodel"
EXTENSIONS = ("classification", "binary_tensor_data", "model_repository")
MOST_DIGITS = 19  # of a number in a header; int() refuses more than 4,300
MOST_DIMENSIONS = 8  # of a shape
LARGEST_SIDE = 2**31 - 1  # of a shape
SHOWN = 64  # characters of a header in an error
HINT = 'An input: {"name": ..., "shape": [n, height, width, channels], "datatype": ..., "data": [...]}'


@dataclass(frozen=True, slots=True)
class Input:
    """The one input of a request: image files (datatype BYTES) or a tensor in the model's dtype and shape."""

    pictures: tuple[bytes, ...] | None
    tensor: Tensor | None


@dataclass(frozen=True, slots=True)
class Inference:
    """One request. classes: the number of best classes to answer, 0 for all probabilities. is_binary: the answer is."""

    id: str | None
    input: Input
    classes: int
    is_binary: bool


def model_metadata(name: str, versions: Sequence[int], card: ModelCard) -> schemas.Metadata:
    """Build the answer of GET /v2/models/{model}. The input also takes image files: datatype BYTES, shape [n]."""
    shape = [-1 if side is None else side for side in card.input.shape]
    return {
        "name": name,
        "versions": [str(version) for version in versions],
        "platform": PLATFORM,
        "inputs": [{"name": card.input.tensor, "datatype": BY_NUMPY[card.input.dtype].v2, "shape": shape}],
        "outputs": [{"name": card.output.tensor, "datatype": "FP32", "shape": [-1, len(card.labels)]}],
    }


def read_inference(
    body: bytes,
    header_length: str | None,
    card: ModelCard,
    max_images: int,
    *,
    limits: JsonLimits,
    executor: Executor,
) -> Inference:
    """Parse the body of POST .../infer: `header_length` bytes of JSON, then the binary tensors.

    executor: runs it where the JSON is large.
    Raises InvalidJson for what the protocol or the model does not allow, InvalidBase64 for an image in JSON,
    RequestTooLarge past `limits`.
    """
    head, tail = _split(body, header_length)
    return run_sized(head, executor)(lambda: _inference(head, tail, card, max_images, limits), json_memory(head))


def _inference(head: bytes, tail: bytes, card: ModelCard, max_images: int, limits: JsonLimits) -> Inference:
    document = _object(_parsed(head, limits), "The body")
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise InvalidJson("`inputs` must be a list of one input: the model has one.", hint=HINT)
    classes, is_binary = _wanted(document, card)
    given_id = document.get("id")
    if not (given_id is None or isinstance(given_id, str)):
        raise InvalidJson("`id` must be a string.")
    return Inference(given_id, _input(_object(inputs[0], "inputs[0]"), tail, card, max_images), classes, is_binary)


def inference_answer(
    name: str, version: int, card: ModelCard, asked: Inference, probabilities: npt.NDArray[np.float32]
) -> tuple[bytes, dict[str, str]]:
    """Build the body of the answer and its headers. probabilities: float32 (n, classes)."""
    if asked.classes:
        strings = [_classified(row, card, asked.classes) for row in probabilities]
        shape, datatype = [len(strings), len(strings[0]) if strings else 0], "BYTES"
        flat = [text for row in strings for text in row]
        data: list[Any] = flat
        raw = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in flat)
    else:
        shape, datatype = list(probabilities.shape), "FP32"
        data = probabilities.ravel().tolist() if not asked.is_binary else []
        raw = probabilities.astype("<f4").tobytes()
    output: schemas.InferTensor = {"name": card.output.tensor, "datatype": datatype, "shape": shape}
    if asked.is_binary:
        output["parameters"] = {"binary_data_size": len(raw)}
    else:
        output["data"] = data
    document: schemas.InferAnswer = {"model_name": name, "model_version": str(version), "outputs": [output]}
    if asked.id is not None:
        document["id"] = asked.id
    head = json.dumps(document, separators=(",", ":")).encode()
    if asked.is_binary:
        return head + raw, {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return head, {"Content-Type": "application/json"}


def _classified(row: npt.NDArray[np.float32], card: ModelCard, classes: int) -> list[str]:
    """Format classes as Triton does, `score:index:label`, best first."""
    best = top_k(row, card.label_names, classes).top
    return [f"{label.score:f}:{label.index}:{label.label}" for label in best]


def _split(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    if header_length is None:
        return body, b""
    digits = header_length.lstrip("0") or "0"
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > MOST_DIGITS or int(digits) > len(body):
        raise InvalidJson(f"{HEADER_LENGTH} is {header_length[:SHOWN]!r}; the body has {len(body)} bytes.")
    return body[: int(digits)], body[int(digits) :]


def _parsed(head: bytes, limits: JsonLimits) -> Any:
    try:
        return parse_json(head, limits)
    except InvalidJson as exc:
        raise InvalidJson(exc.detail, hint=HINT) from exc


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidJson(f"{where} must be an object.", hint=HINT)
    return value


def _parameters(holder: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    return _object(holder.get("parameters") or {}, f"{where}.parameters")


def _wanted(document: Mapping[str, Any], card: ModelCard) -> tuple[int, bool]:
    """Read the number of classes and the form of the answer, from the one output or the request."""
    is_binary = bool(_parameters(document, "The body").get("binary_data_output", False))
    outputs = document.get("outputs") or []
    if not isinstance(outputs, list) or len(outputs) > 1:
        raise InvalidJson("`outputs` must be a list of at most one output: the model has one.")
    if not outputs:
        return 0, is_binary
    output = _object(outputs[0], "outputs[0]")
    if output.get("name") != card.output.tensor:
        raise InvalidJson(f"outputs[0].name is {output.get('name')!r}; the model has {card.output.tensor!r}.")
    parameters = _parameters(output, "outputs[0]")
    classes = parameters.get("classification", 0)
    if type(classes) is not int or classes < 0:
        raise InvalidJson(f"classification is {classes!r}; it must be a whole number from 0.")
    return classes, bool(parameters.get("binary_data", is_binary))


def _input(given: Mapping[str, Any], tail: bytes, card: ModelCard, max_images: int) -> Input:
    if given.get("name") != card.input.tensor:
        raise InvalidJson(f"inputs[0].name is {given.get('name')!r}; the model has {card.input.tensor!r}.", hint=HINT)
    shape = given.get("shape")
    if not isinstance(shape, list) or not 1 <= len(shape) <= MOST_DIMENSIONS:
        raise InvalidJson(f"inputs[0].shape must be a list of 1 to {MOST_DIMENSIONS} whole numbers.", hint=HINT)
    if not all(type(side) is int and 0 <= side <= LARGEST_SIDE for side in shape):
        raise InvalidJson(f"inputs[0].shape must hold whole numbers from 0 to {LARGEST_SIDE}.", hint=HINT)
    if not 1 <= shape[0] <= max_images:
        raise InvalidJson(f"inputs[0].shape asks for {shape[0]} images; allowed are 1 to {max_images}.")
    size = _parameters(given, "inputs[0]").get("binary_data_size")
    if size is not None and size != len(tail):
        raise InvalidJson(f"binary_data_size is {size!r}; {len(tail)} bytes follow the JSON.")
    raw = None if size is None else tail
    if given.get("datatype") == "BYTES":
        return Input(_pictures(given.get("data"), raw, shape), None)
    return Input(None, _tensor(given, raw, shape, card))


def _tensor(given: Mapping[str, Any], raw: bytes | None, shape: list[int], card: ModelCard) -> Tensor:
    dtype = np.dtype(card.input.dtype)
    wanted = BY_NUMPY[card.input.dtype].v2
    if given.get("datatype") != wanted:
        raise InvalidJson(f"inputs[0].datatype is {given.get('datatype')!r}; the model takes {wanted} or BYTES.")
    if len(shape) != len(card.input.shape) or any(
        want not in (None, side) for want, side in zip(card.input.shape, shape, strict=True)
    ):
        raise InvalidJson(f"inputs[0].shape is {shape}; the model takes {[side or -1 for side in card.input.shape]}.")
    try:
        if raw is not None:
            values = np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype)
        else:
            values = array_from_json(given.get("data"), BY_NUMPY[card.input.dtype].code).ravel()
    except (ValueError, CallError, RecursionError) as exc:
        reason = exc.message if isinstance(exc, CallError) else str(exc)
        raise InvalidJson(f"inputs[0].data cannot be read as {wanted}: {reason}.") from exc
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InvalidJson("inputs[0].data holds NaN or infinity.")
    if values.size != math.prod(shape):
        raise InvalidJson(f"inputs[0].data has {values.size} values; its shape {shape} wants {math.prod(shape)}.")
    return values.reshape(shape)


def _pictures(data: Any, raw: bytes | None, shape: list[int]) -> tuple[bytes, ...]:
    pictures = _length_prefixed(raw) if raw is not None else _from_base64(data)
    if len(pictures) != math.prod(shape):
        raise InvalidJson(f"inputs[0] holds {len(pictures)} images; its shape {shape} wants {math.prod(shape)}.")
    return tuple(pictures)


def _length_prefixed(raw: bytes) -> list[bytes]:
    """Split Triton's BYTES: for each element its length in 4 little-endian bytes, then its bytes."""
    parts, at = [], 0
    while at < len(raw):
        if at + 4 > len(raw):
            raise InvalidJson("The binary BYTES end inside a length.")
        (length,) = struct.unpack_from("<I", raw, at)
        if at + 4 + length > len(raw):
            raise InvalidJson("The binary BYTES end inside an element.")
        parts.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    return parts


def _from_base64(data: Any) -> list[bytes]:
    if not isinstance(data, list) or not all(isinstance(item, str) for item in data):
        raise InvalidJson("inputs[0].data must be a list of images in base64.")
    return [_picture(item, index) for index, item in enumerate(data)]


def _picture(text: str, index: int) -> bytes:
    try:
        return decode_base64(text)
    except ValueError as exc:
        raise InvalidBase64(f"inputs[0].data[{index}] is not base64: {exc}.") from exc


def first_bad(errors: Sequence[BadImage | None]) -> BadImage | None:
    """Return the first error of an image. The protocol has no place for an error beside other answers."""
    return next((error for error in errors if error is not None), None)
