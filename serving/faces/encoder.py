"""The protocol of a face encoder."""

from dataclasses import dataclass
from typing import Protocol

from serving.faces.face import Chips, Encodings


@dataclass(frozen=True, slots=True)
class EncoderName:
    """Identify an encoder: only encodings of the same name and version can be compared.

    version: the first 12 hexadecimal digits of the weights' SHA-256. Two programs that run the same weights
    (dlib, TensorFlow Serving) have the same name.
    """

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class FaceEncoder(Protocol):
    """Turn chips into encodings. To add an encoder, write one class with these two members."""

    @property
    def name(self) -> EncoderName:
        """The encoder whose vectors `encode` returns."""
        ...

    def encode(self, chips: Chips) -> Encodings:
        """Encode chips, uint8 (n, 150, 150, 3), RGB, n >= 0. Returns float32 (n, 128)."""
        ...
