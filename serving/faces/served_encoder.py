"""The face encoder on the model server, used once it agrees with dlib; dlib while it is away or differs."""

import logging
import threading
import time
from collections.abc import Callable

import numpy as np

from serving.contract.errors import DeadlineExceeded, ModelError, NotFound, Unavailable
from serving.faces.encoder import EncoderName, FaceEncoder
from serving.faces.face import CHIP_SIDE, ENCODING_SIZE, Chips, Encodings

log = logging.getLogger(__name__)

MODEL, SIGNATURE, INPUT, OUTPUT = "face-encoder", "serving_default", "chips", "encodings"
PARITY = 1e-5  # largest allowed difference from dlib's encodings; the tolerance of a match is 0.6
PROBES = 4
RETRY_SECONDS = 30.0  # pause before the model server is tried again


def probe_chips() -> Chips:
    """Return the chips on which two encoders are compared, uint8 (4, 150, 150, 3), the same every time.

    They are smooth noise, so that no person's face has to be shipped.
    """
    coarse = np.random.default_rng(0).integers(0, 256, (PROBES, 15, 15, 3))
    return np.repeat(np.repeat(coarse, CHIP_SIDE // 15, axis=1), CHIP_SIDE // 15, axis=2).astype(np.uint8)


class ServedEncoder:
    """Encode with `call`; use `fallback` while `call` fails or disagrees with it.

    call: chips uint8 (n, 150, 150, 3), n >= 1, to float32 (n, 128); may raise what a Predictor raises.
    fallback: dlib. clock: monotonic seconds. Safe to share between threads.
    """

    def __init__(
        self, call: Callable[[Chips], Encodings], fallback: FaceEncoder, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._call = call
        self._fallback = fallback
        self._clock = clock
        self._is_trusted = False
        self._not_before = -np.inf
        self._lock = threading.Lock()

    @property
    def name(self) -> EncoderName:
        """The fallback's name: the vectors are the same."""
        return self._fallback.name

    def encode(self, chips: Chips) -> Encodings:
        """Encode chips, uint8 (n, 150, 150, 3). Returns float32 (n, 128). Raises what the fallback raises."""
        if len(chips) == 0:
            return np.zeros((0, ENCODING_SIZE), np.float32)
        if self._clock() < self._not_before or not self._trusted():
            return self._fallback.encode(chips)
        try:
            return self._call(chips)
        except (NotFound, Unavailable, DeadlineExceeded, ModelError) as exc:
            self._stand_back(exc.detail)
            return self._fallback.encode(chips)

    def _trusted(self) -> bool:
        """Check that the model server agrees with dlib: once, and again after each outage."""
        with self._lock:
            if not self._is_trusted and self._clock() >= self._not_before:
                self._is_trusted = self._agrees()
            return self._is_trusted

    def _agrees(self) -> bool:
        probes = probe_chips()
        try:
            served = self._call(probes)
        except (NotFound, Unavailable, DeadlineExceeded, ModelError) as exc:
            self._stand_back(exc.detail)
            return False
        difference = float(np.abs(served - self._fallback.encode(probes)).max())
        if difference <= PARITY:
            log.info("encoding faces with the model %s; largest difference from dlib: %.1e", MODEL, difference)
            return True
        self._stand_back(f"the model {MODEL} differs from dlib by {difference:.1e}; {PARITY:.0e} is allowed")
        return False

    def _stand_back(self, why: str) -> None:
        log.warning("encoding faces with dlib for %.0f s: %s", RETRY_SECONDS, why)
        self._is_trusted = False
        self._not_before = self._clock() + RETRY_SECONDS
