"""Predict and GetModelMetadata: TensorFlow Serving's checks, in its order and its words.

Source: tensorflow_serving/servables/tensorflow/predict_impl.cc, predict_util.cc and get_model_metadata_impl.cc.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from serving.runtimes.messages import get_model_metadata_pb2
from serving.runtimes.runtime import Runtime
from serving.runtimes.status import failed_precondition, invalid_argument
from serving.runtimes.tensors import NUMPY_TYPES, Array, repeated_bytes, to_numpy, to_proto

DEFAULT_SIGNATURE = "serving_default"
METADATA_FIELD = "signature_def"
IMAGE_RANK = 4
MAX_REPEATED_BYTES = 4 * 2**20  # gRPC's default limit of a message
REPEATED_ROWS = 128  # as many as the gateway takes pictures in a request
LARGEST_SHOWN = 2**63 - 1


def require_spec(request: Any) -> None:
    """Refuse a request that does not name a model."""
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    if not request.model_spec.name:
        raise invalid_argument("ModelSpec has no name specified.")


def version_of(spec: Any) -> tuple[int | None, str | None]:
    """Return the version and the label that a ModelSpec asks for; at most one of them."""
    choice = spec.WhichOneof("version_choice")
    return (
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )


def predict(
    model: Runtime,
    request: Any,
    outputs: Any,
    deadline: float | None,
    write: Callable[[Array, Any], None] = to_proto,
    *,
    max_repeated_bytes: int = MAX_REPEATED_BYTES,
) -> str:
    """Run the request's signature and fill `outputs`, a map of alias to TensorProto. Returns the signature's name.

    deadline: of time.monotonic. write: puts an array into a TensorProto. max_repeated_bytes: see `_require_bounded`;
    0: no limit. Raises CallError.
    """
    name: str = request.model_spec.signature_name or DEFAULT_SIGNATURE
    signature = model.signatures.get(name)
    if signature is None:
        raise failed_precondition(f'Serving signature key "{name}" not found.')
    feeds = _feeds(signature, request.inputs, max_repeated_bytes)
    aliases = _fetched_aliases(signature, request.output_filter)
    arrays = model.run(feeds, [signature.outputs[alias].name for alias in aliases], deadline)
    for alias, array in zip(aliases, arrays, strict=True):
        write(array, outputs[alias])
    return name


def fill_metadata(model: Runtime, request: Any, response: Any) -> None:
    """Answer GetModelMetadata: every signature of the model. Call `check_metadata_fields` first."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in model.signatures.items():
        signatures.signature_def[name].CopyFrom(signature)
    for field in request.metadata_field:
        response.metadata[field].Pack(signatures)


def check_metadata_fields(fields: Sequence[str]) -> None:
    """Refuse an empty list and any field but `signature_def`."""
    if not fields:
        raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for field in fields:
        if field != METADATA_FIELD:
            raise invalid_argument(f"Metadata field {field} is not supported")


def _feeds(signature: Any, inputs: Mapping[str, Any], max_repeated_bytes: int) -> dict[str, Array]:
    """Collect the arrays by tensor name: the request's, and the signature's defaults where it has any."""
    given, wanted = set(inputs), set(signature.inputs)
    defaults = set(signature.defaults)
    if len(given) > len(wanted) or (len(given) < len(wanted) and not defaults):
        raise invalid_argument(
            f"input size does not match signature: {len(given)}!={len(wanted)} len({_names(given)}) != "
            f"len({_names(wanted)}). Sent extra: {_names(given - wanted)}. "
            f"Missing but required: {_names(wanted - given - defaults)}."
        )
    feeds = {}
    for alias in sorted(wanted):
        info = signature.inputs[alias]
        if alias in given:
            feeds[info.name] = _read(alias, info, inputs[alias], max_repeated_bytes)
        elif alias in defaults:
            feeds[info.name] = _read(alias, info, signature.defaults[alias], 0)
        else:
            raise invalid_argument(
                f"Signature input alias: {alias}(feed name: {info.name}) not found in request and no default value "
                f"provided. Inputs expected to be in the request {_names(given)}, or default input alias set: "
                f"{','.join(sorted(defaults))}"
            )
    used = given & wanted
    if used != given:
        raise invalid_argument(
            f"Inputs contains invalid name. Used request inputs: {_names(used)}, request input: {_names(given)}"
        )
    return feeds


def _read(alias: str, info: Any, tensor: Any, max_repeated_bytes: int) -> Array:
    try:
        _require_bounded(alias, info, tensor, max_repeated_bytes)
        array = to_numpy(tensor)
    except (ValueError, TypeError) as exc:
        raise invalid_argument(f"tensor parsing error: {alias}") from exc
    _check_rank(info, array)
    return array


def _require_bounded(alias: str, info: Any, tensor: Any, max_repeated_bytes: int) -> None:
    """Refuse a small message that unpacks to a large tensor: one value and the shape of two million pictures.

    REPEATED_ROWS rows of the model's input are always allowed. TensorFlow Serving has no such limit. Raises ValueError
    as `to_numpy` does.
    """
    repeated = repeated_bytes(tensor) if max_repeated_bytes else 0
    if repeated <= max_repeated_bytes:
        return
    inner = [dim.size for dim in info.tensor_shape.dim[1:]]
    itemsize = NUMPY_TYPES[tensor.dtype].itemsize
    if inner and min(inner) > 0 and repeated <= REPEATED_ROWS * math.prod(inner) * itemsize:
        return
    raise invalid_argument(
        f"tensor {alias} repeats a value for {min(repeated, LARGEST_SHOWN)} bytes; the limit is {max_repeated_bytes} "
        "(--max_repeated_tensor_bytes). Send every value."
    )


def _check_rank(info: Any, array: Array) -> None:
    """Refuse a picture tensor of another rank: oneDNN's convolution ends the whole process over it.

    TensorFlow Serving checks no shape at all, and neither do we elsewhere: the operations say what they take.
    """
    declared = info.tensor_shape
    if not declared.unknown_rank and IMAGE_RANK <= len(declared.dim) != array.ndim:
        raise invalid_argument(f"input must be {len(declared.dim)}-dimensional: {list(array.shape)}")


def _fetched_aliases(signature: Any, output_filter: Sequence[str]) -> list[str]:
    """Return the outputs to compute: those asked for, or all."""
    chosen: list[str] = []
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{_names(signature.outputs)}."
            )
        if alias in chosen:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        chosen.append(alias)
    return chosen or sorted(signature.outputs)


def _names(names: Collection[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
