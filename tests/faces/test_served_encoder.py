"""The encoder on the model server, and dlib behind it."""

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from serving.backend.backends import Backends
from serving.backend.tensor_function import TensorFunction
from serving.contract.errors import ModelServerUnavailable, UnknownModel
from serving.faces.encoder import EncoderName
from serving.faces.face import Chips, Encodings
from serving.faces.served_encoder import (
    INPUT,
    MODEL,
    OUTPUT,
    PARITY,
    RETRY_SECONDS,
    SIGNATURE,
    ServedEncoder,
    probe_chips,
)
from serving.faces.service.pool import FacePool

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent.parent
NAME = EncoderName("dlib", "1")


class Dlib:
    """A fallback whose numbers can be computed by hand: every number of an encoding is the chip's mean."""

    name = NAME

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, chips: Chips) -> Encodings:
        self.calls += 1
        return means(chips)


def means(chips: Chips) -> Encodings:
    return np.repeat(chips.reshape(len(chips), -1).mean(axis=1, keepdims=True), 128, axis=1).astype(np.float32)


def test_agreement_is_checked_once_and_then_dlib_rests() -> None:
    dlib = Dlib()
    encoder = ServedEncoder(means, dlib)
    for _ in range(3):
        assert np.array_equal(encoder.encode(probe_chips()), means(probe_chips()))
    assert dlib.calls == 1
    assert encoder.name == NAME


def test_encoder_that_differs_is_never_used() -> None:
    encoder = ServedEncoder(lambda chips: means(chips) + 2 * PARITY, Dlib())
    assert np.array_equal(encoder.encode(probe_chips()), means(probe_chips()))


@pytest.mark.parametrize("error", [ModelServerUnavailable("away"), UnknownModel("none")])
def test_dlib_encodes_while_the_model_server_is_away(error: Exception) -> None:
    now, is_away = 0.0, False

    def call(chips: Chips) -> Encodings:
        if is_away:
            raise error
        return means(chips)

    dlib = Dlib()
    encoder = ServedEncoder(call, dlib, clock=lambda: now)
    encoder.encode(probe_chips())
    is_away = True
    for _ in range(3):
        assert np.array_equal(encoder.encode(probe_chips()), means(probe_chips()))
    assert dlib.calls == 4
    is_away, now = False, RETRY_SECONDS
    encoder.encode(probe_chips())  # checked anew: another version may have come
    encoder.encode(probe_chips())
    assert dlib.calls == 5


def test_no_chips_ask_nobody() -> None:
    assert ServedEncoder(pytest.fail, Dlib()).encode(probe_chips()[:0]).shape == (0, 128)


def test_model_server_says_what_dlib_says(pool: FacePool, face_encoder: Path, unused_port: int) -> None:
    target = f"127.0.0.1:{unused_port}"
    command = [sys.executable, "-m", "serving.model_server", "--models", str(face_encoder), "--port", str(unused_port)]
    server = subprocess.Popen(command, cwd=ROOT)
    wait_for(unused_port, server)
    backends = Backends([target])
    call = TensorFunction(backends, MODEL, signature=SIGNATURE, input=INPUT, output=OUTPUT, timeout_seconds=30)
    try:
        answer = eventually(call, server)
        assert np.abs(answer - pool.encode(probe_chips())).max() < PARITY
        encoder = ServedEncoder(call, pool)
        assert np.array_equal(encoder.encode(probe_chips()), answer)
    finally:
        backends.close()
        server.terminate()
        server.wait(20)


def wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    """Until somebody listens: gRPC would wait longer after each attempt that fails."""
    while server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise AssertionError("the model server has ended")


def eventually(call: TensorFunction, server: "subprocess.Popen[bytes]") -> Encodings:
    """The answer, once the model server is up."""
    for _ in range(1200):
        assert server.poll() is None
        try:
            return call(probe_chips())
        except (ModelServerUnavailable, UnknownModel):
            time.sleep(0.1)
    return call(probe_chips())
