import io
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest
from PIL import Image

from serving.backend.predictor import ANYTIME, Call
from serving.contract.card import ModelCard
from serving.contract.errors import (
    BadImage,
    DeadlineExceeded,
    InvalidBase64,
    NotAnImage,
    RequestTooLarge,
    TruncatedImage,
)
from serving.contract.executor import Executor
from serving.contract.image import decode_image, decode_picture
from serving.contract.image_limits import ImageLimits
from serving.prepare import Prepared, Stages, prepare
from tests.cards import COLORS

T = TypeVar("T")
LIMITS = ImageLimits()


def encoded(width: int, height: int, color: str = "red", kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), color).save(buffer, kind, **options)
    return buffer.getvalue()


class Elsewhere:
    """An Executor that remembers the size of each work."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, work: Callable[[], T], size: int = 0) -> T:
        self.sizes.append(size)
        return work()


def prepared(
    *pictures: bytes | BadImage,
    card: ModelCard = COLORS,
    limits: ImageLimits = LIMITS,
    call: Call = ANYTIME,
    executor: Executor | None = None,
    with_inputs: bool = False,
) -> Prepared:
    return prepare(
        pictures,
        card,
        limits,
        stages=Stages(),
        call=call,
        executor=executor or Elsewhere(),
        with_inputs=with_inputs,
    )


def test_good_pictures_become_a_batch_and_bad_ones_their_errors() -> None:
    broken = InvalidBase64("images[2].b64 is not base64")
    cut = encoded(3, 3)[:-30]
    result = prepared(encoded(3, 3), b"text", broken, cut, encoded(4, 4, "blue"), with_inputs=True)
    assert result.batch.tolist() == [[[[255, 0, 0]] * 2] * 2, [[[0, 0, 255]] * 2] * 2]
    assert [type(error) for error in result.errors] == [
        type(None),
        NotAnImage,
        InvalidBase64,
        TruncatedImage,
        type(None),
    ]
    assert result.errors[2] is broken
    assert [None if each is None else each.tolist() for each in result.inputs] == [
        result.batch[0].tolist(),
        None,
        None,
        None,
        result.batch[1].tolist(),
    ]


def test_no_good_picture_is_an_empty_batch() -> None:
    assert prepared(b"text").batch.shape == (0, 2, 2, 3)


def test_a_model_of_floats_gets_them_and_the_input_stays_a_picture() -> None:
    floats = replace(COLORS.preprocessing, dtype="float32", scale=1 / 255)
    card = replace(COLORS, preprocessing=floats, input=replace(COLORS.input, dtype="float32"))
    result = prepared(encoded(3, 3), card=card, with_inputs=True)
    assert result.batch.dtype == np.float32
    assert result.batch[0, 0, 0].tolist() == [1, 0, 0]
    assert result.inputs[0] is not None
    assert result.inputs[0][0, 0].tolist() == [255, 0, 0]


def test_pixels_of_a_request_are_bounded_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.prepare.decode_picture", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(RequestTooLarge, match=r"3 images have 300 pixels together.*limit is 299.*MAX_REQUEST_PIXELS"):
        prepared(*[encoded(10, 10)] * 3, limits=ImageLimits(max_request_pixels=299))


def test_pictures_that_are_refused_count_no_pixels() -> None:
    limits = ImageLimits(max_image_pixels=100, max_request_pixels=200)
    result = prepared(encoded(10, 10), encoded(11, 10), b"text", encoded(10, 10), limits=limits)
    assert [error and error.code for error in result.errors] == [None, "too_many_pixels", "not_an_image", None]


def test_one_picture_is_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    earlier: list[weakref.ref[Image.Image]] = []

    def decode(data: bytes, limits: ImageLimits) -> Image.Image:
        assert [ref() for ref in earlier] == [None] * len(earlier)
        picture = decode_picture(data, limits)
        earlier.append(weakref.ref(picture))
        return picture

    monkeypatch.setattr("serving.prepare.decode_picture", decode)
    assert len(prepared(*[encoded(500, 400)] * 4, with_inputs=True).batch) == 4
    assert len(earlier) == 4


@pytest.mark.parametrize(
    "pictures",
    [
        [encoded(28, 28)],
        [encoded(28, 28)] * 8,
        [encoded(128, 128, kind="JPEG")],
        [encoded(224, 224, kind="JPEG")],
        [b"text"] * 100,
    ],
)
def test_small_pictures_are_decoded_inline(pictures: list[bytes]) -> None:
    elsewhere = Elsewhere()
    prepared(*pictures, executor=elsewhere)
    assert elsewhere.sizes == []


@pytest.mark.parametrize(
    "pictures",
    [
        [encoded(2000, 2000, "white")],  # 12 KB
        [encoded(2000, 500, "white", "WEBP", lossless=True)],  # a few bytes
        [encoded(64, 64, kind="JPEG2000")],
        [encoded(28, 28)] * 128,
        [encoded(28, 28, kind="TIFF") + bytes(300_000)],
    ],
)
def test_pixels_number_and_bytes_decide_what_is_decoded_elsewhere(pictures: list[bytes]) -> None:
    elsewhere = Elsewhere()
    prepared(*pictures, executor=elsewhere)
    assert len(elsewhere.sizes) == 1


def test_the_shape_of_the_result_decides_too() -> None:
    elsewhere = Elsewhere()
    large = replace(COLORS.preprocessing, height=1000, width=1000)
    prepared(encoded(28, 28), card=replace(COLORS, preprocessing=large), executor=elsewhere)
    assert len(elsewhere.sizes) == 1


def test_the_executor_is_told_the_memory_of_the_largest_picture_and_all_results() -> None:
    elsewhere = Elsewhere()
    one, many = [encoded(1000, 1000)], [encoded(1000, 1000)] * 5
    prepared(*one, executor=elsewhere)
    prepared(*many, executor=elsewhere)
    small, large = elsewhere.sizes
    assert small > decode_image(one[0], LIMITS).nbytes
    assert large == small + 4 * 2 * 2 * 3


def test_the_deadline_and_the_client_are_checked_before_each_picture() -> None:
    answers = iter([False, False, True])
    with pytest.raises(DeadlineExceeded, match="client has gone"):
        prepared(*[encoded(3, 3)] * 5, call=Call(is_abandoned=lambda: next(answers)))
    assert next(answers, None) is None
    with pytest.raises(DeadlineExceeded, match="time allowed"):
        prepared(encoded(3, 3), call=Call(time.monotonic() - 1))
