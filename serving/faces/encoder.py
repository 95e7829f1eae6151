"""What makes 128 numbers of a face."""

from dataclasses import dataclass
from typing import Protocol

from serving.faces.face import Chips, Encodings


@dataclass(frozen=True, slots=True)
class EncoderName:
    """Whose vectors they are: only those of the same name and version can be compared.

    version: the first 12 hexadecimal digits of the weights' SHA-256. Two programs that run the same weights
    (dlib, TensorFlow Serving) have the same name.
    """

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class FaceEncoder(Protocol):
    """Chips to encodings. To add an encoder, write one class with these two."""

    @property
    def name(self) -> EncoderName:
        """Whose vectors `encode` returns."""
        ...

    def encode(self, chips: Chips) -> Encodings:
        """chips: uint8 (n, 150, 150, 3), RGB. Returns float32 (n, 128); n may be 0."""
        ...
