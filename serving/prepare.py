"""Encoded pictures to a model's batch. Costs are read from headers first; then one picture is decoded at a time."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from PIL import Image

from serving.backend.predictor import Call
from serving.contract.card import ModelCard
from serving.contract.errors import BadImage, RequestTooLarge
from serving.contract.executor import Executor
from serving.contract.headers import Header
from serving.contract.image import Pixels, decode_picture, probe
from serving.contract.image_limits import ImageLimits
from serving.contract.preprocessing import Preprocessing, Tensor

# Nanoseconds, measured with Pillow 13 on one core of a small server, for pictures of up to 512 x 512; what a pixel of
# each format takes is in COSTS of `serving.contract.headers`.
INLINE_NANOSECONDS = 2_000_000  # of a whole request: more of it is decoded off the event loop
PICTURE_NANOSECONDS = 60_000
BYTE_NANOSECONDS = 10  # of the file
INK_NANOSECONDS = 100  # a pixel, to find and thicken strokes
VALUE_NANOSECONDS = {"uint8": 3, "float32": 8}  # of the result


@dataclass(slots=True)
class Stages:
    """Milliseconds of each stage of one request."""

    milliseconds: dict[str, float] = field(default_factory=dict)

    def timed(self, stage: str) -> "Timed":
        """Add the time of the block to `stage`."""
        return Timed(self.milliseconds, stage)


class Timed:
    """Context manager that times a block. A class: a generator costs ten times as much per request."""

    __slots__ = ("_milliseconds", "_stage", "_start")

    def __init__(self, milliseconds: dict[str, float], stage: str) -> None:
        self._milliseconds, self._stage = milliseconds, stage

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *exc: object) -> None:
        spent = (time.perf_counter() - self._start) * 1000
        self._milliseconds[self._stage] = self._milliseconds.get(self._stage, 0.0) + spent


@dataclass(frozen=True, slots=True)
class Prepared:
    """The pictures of a request as the model takes them.

    batch: (n, height, width, channels) of the good ones; n may be 0. errors: for each picture its error,
    None where it is good. inputs: for each picture uint8 (height, width, channels), None where it is bad; empty unless
    requested.
    """

    batch: Tensor
    errors: tuple[BadImage | None, ...]
    inputs: tuple[Pixels | None, ...] = ()


def prepare(
    pictures: Sequence[bytes | BadImage],
    card: ModelCard,
    limits: ImageLimits,
    *,
    stages: Stages,
    call: Call,
    executor: Executor,
    with_inputs: bool = False,
) -> Prepared:
    """Decode and preprocess the pictures, one after the other: at most one is in memory at its full size.

    pictures: bytes of image files, or the error of one that could not be read.
    executor: runs what takes more than INLINE_NANOSECONDS.
    Raises RequestTooLarge, before anything is decoded, where the pictures have too many pixels together;
    DeadlineExceeded between two pictures; none for bad images.
    """
    headers = read_headers(pictures, limits)
    usable = [header if isinstance(header, BadImage) else each for each, header in zip(pictures, headers, strict=True)]

    def work() -> Prepared:
        decode = partial(_decoded, limits=limits, stages=stages, call=call)
        return _prepared(usable, card.preprocessing, decode, stages, with_inputs=with_inputs)

    if nanoseconds(pictures, headers, card.preprocessing) <= INLINE_NANOSECONDS:
        return work()
    return executor(work, _memory(headers, card.preprocessing))


def read_headers(pictures: Sequence[bytes | BadImage], limits: ImageLimits) -> list[Header | BadImage]:
    """Read the cost of each picture from its header; a bad one becomes its error, and counts nothing.

    Raises RequestTooLarge where they have too many pixels together.
    """
    headers = [_header(picture, limits) for picture in pictures]
    pixels = sum(header.pixels for header in headers if isinstance(header, Header))
    if pixels > limits.max_request_pixels:
        count = sum(isinstance(header, Header) for header in headers)
        raise RequestTooLarge(
            f"The request's {count} images have {pixels:,} pixels together; the limit is "
            f"{limits.max_request_pixels:,} (SIGHTLINE_MAX_REQUEST_PIXELS).",
            hint="Send them in several requests, or scale them down.",
        )
    return headers


def nanoseconds(
    pictures: Sequence[bytes | BadImage], headers: Sequence[Header | BadImage], preprocessing: Preprocessing
) -> int:
    """Estimate the time that preparing a request takes."""
    values = preprocessing.height * preprocessing.width * preprocessing.channels
    each = PICTURE_NANOSECONDS + values * VALUE_NANOSECONDS[preprocessing.dtype]
    ink = INK_NANOSECONDS if preprocessing.fit == "ink" else 0
    total = 0
    for picture, header in zip(pictures, headers, strict=True):
        if isinstance(header, Header) and isinstance(picture, bytes):
            total += each + header.decoding_nanoseconds + header.pixels * ink + len(picture) * BYTE_NANOSECONDS
    return total


def _memory(headers: Sequence[Header | BadImage], preprocessing: Preprocessing) -> int:
    """Return an upper bound of the bytes that preparing takes: the largest picture and all results."""
    costs = [header.decoding_bytes for header in headers if isinstance(header, Header)]
    item = np.dtype(preprocessing.dtype).itemsize
    values = preprocessing.height * preprocessing.width * preprocessing.channels
    return max(costs, default=0) + (len(costs) + 1) * values * item


def _header(picture: bytes | BadImage, limits: ImageLimits) -> Header | BadImage:
    if isinstance(picture, BadImage):
        return picture
    try:
        return probe(picture, limits)
    except BadImage as exc:
        return exc


def _prepared(
    pictures: Sequence[bytes | BadImage],
    preprocessing: Preprocessing,
    decode: Callable[[bytes], Image.Image | BadImage],
    stages: Stages,
    *,
    with_inputs: bool,
) -> Prepared:
    count = sum(isinstance(picture, bytes) for picture in pictures)
    shape = (count, preprocessing.height, preprocessing.width, preprocessing.channels)
    batch = np.empty(shape, preprocessing.dtype)
    errors: list[BadImage | None] = []
    inputs: list[Pixels | None] = []
    good = 0
    for picture in pictures:
        outcome = picture if isinstance(picture, BadImage) else decode(picture)
        if isinstance(outcome, BadImage):
            errors.append(outcome)
            inputs.append(None)
            continue
        with stages.timed("preprocess"):
            pixels = preprocessing.pixels(outcome)
            del outcome  # the picture at its full size, before the next one
            batch[good] = preprocessing.scaled(pixels)
        errors.append(None)
        inputs.append(pixels if with_inputs else None)
        good += 1
    return Prepared(batch[:good], tuple(errors), tuple(inputs) if with_inputs else ())


def _decoded(picture: bytes, limits: ImageLimits, stages: Stages, call: Call) -> Image.Image | BadImage:
    call.require_wanted()
    try:
        with stages.timed("decode"):
            return decode_picture(picture, limits)
    except BadImage as exc:
        return exc
