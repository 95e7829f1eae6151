"""Messages between gateways, the face service and its processes: a JSON header and blobs.

Not pickle, which would run code that it receives.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from serving.contract.errors import SightlineError
from serving.faces.face import CHIP_SIDE, ENCODING_SIZE, Box, Chips, Detection, Encodings, FoundFace, Quality

LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Message:
    """header: values of JSON's types. blobs: photos, chips, encodings."""

    header: Mapping[str, Any]
    blobs: Sequence[bytes] = ()


def pack(message: Message) -> bytes:
    """Serialise a message."""
    head = json.dumps({**message.header, "blobs": [len(blob) for blob in message.blobs]}).encode()
    return b"".join([LENGTH.pack(len(head)), head, *message.blobs])


def unpack(data: bytes) -> Message:
    """Read a message that `pack` made. Raises ValueError for anything else."""
    (size,) = LENGTH.unpack_from(data)
    header = json.loads(data[LENGTH.size : LENGTH.size + size])
    blobs, start = [], LENGTH.size + size
    for length in header.pop("blobs"):
        blobs.append(data[start : start + length])
        start += length
    if start != len(data):
        raise ValueError(f"message of {len(data)} bytes; its header says {start}")
    return Message(header, blobs)


def error_message(error: SightlineError) -> Message:
    """Turn an error into a message; `raise_if_error` raises it on the other side."""
    return Message({"error": {"code": error.code, "detail": error.detail, "hint": error.hint}})


def raise_if_error(message: Message) -> Message:
    """Return the message; raise the error that it carries, if any, by its own class."""
    error = message.header.get("error")
    if error is None:
        return message
    raise ERRORS.get(error["code"], SightlineError)(error["detail"], hint=error["hint"])


def _tree(kind: type[SightlineError]) -> Iterator[type[SightlineError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


ERRORS = {kind.code: kind for kind in _tree(SightlineError)}


def detection_message(found: Detection) -> Message:
    """Turn a detection into a message."""
    faces = [
        {"box": asdict(face.box), "confidence": face.confidence, "quality": asdict(face.quality)}
        for face in found.faces
    ]
    header = {
        "faces": faces,
        "tried": found.tried,
        "width": found.width,
        "height": found.height,
        "sha256": found.sha256,
    }
    return Message(header, [chips_blob(found.chips)])


def read_detection(message: Message) -> Detection:
    """Read the detection that `detection_message` wrote."""
    header = message.header
    faces = tuple(
        FoundFace(Box(**face["box"]), face["confidence"], Quality(**face["quality"]), chip)
        for face, chip in zip(header["faces"], read_chips(message.blobs[0]), strict=True)
    )
    return Detection(faces, tuple(header["tried"]), header["width"], header["height"], header["sha256"])


def chips_blob(chips: Chips) -> bytes:
    """Serialise chips."""
    return chips.tobytes()


def read_chips(blob: bytes) -> Chips:
    """Read chips, uint8 (n, 150, 150, 3)."""
    return np.frombuffer(blob, np.uint8).reshape(-1, CHIP_SIDE, CHIP_SIDE, 3)


def encodings_blob(encodings: Encodings) -> bytes:
    """Serialise encodings as little-endian float32."""
    return encodings.astype("<f4").tobytes()


def read_encodings(blob: bytes) -> Encodings:
    """Read encodings, float32 (n, 128)."""
    return np.frombuffer(blob, "<f4").reshape(-1, ENCODING_SIZE)
