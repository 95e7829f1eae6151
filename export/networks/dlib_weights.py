"""Read dlib's file of a trained network into numpy, without dlib.

Format, as dlib's `serialize` and `deserialize` write it (dlib/serialize.h, dlib/dnn/core.h and layers.h, 20.0):

- int: a control byte (low 4 bits: how many bytes n follow; 0x80: negative), then n bytes of magnitude, little-endian;
- float: int mantissa, int exponent: mantissa * 2**exponent; bool: the character '0' or '1'; string: int length, bytes;
- tensor: int 2, ints n, k, rows, columns, then little-endian float32; alias_tensor: int 1 and four ints;
- a network: the loss layer, one int for each wrapper (outermost first; 3 is the innermost), the input layer, and the
  layers from input to output, each as its details, three bools and three tensors.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from serving.contract.errors import InvalidData

Floats = npt.NDArray[np.float32]

LOSS, INPUT = "loss_metric_2", "input_rgb_image_sized"
INNERMOST = 3


@dataclass(frozen=True, slots=True)
class DlibLayer:
    """One layer. kind: dlib's name without its version, such as `con`.

    parameters: `con`: kernel (filters, channels, rows, columns) and bias (filters,); `affine`: gamma, beta;
    `fc`: (inputs, outputs); otherwise none. stride, padding: (y, x), of `con` and the pools.
    """

    kind: str
    parameters: tuple[Floats, ...] = ()
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class DlibNetwork:
    """mean: of each channel, subtracted from the pixels. side: of the input. layers: from input to output."""

    mean: tuple[float, float, float]
    side: int
    layers: tuple[DlibLayer, ...]


def read_network(path: Path) -> DlibNetwork:
    """Read dlib's face recognition network. Raises InvalidData for any other file, and for one that is cut off."""
    reader = _Reader(path.read_bytes())
    try:
        network = _network(reader)
    except (struct.error, ValueError, KeyError, IndexError) as exc:
        raise InvalidData(
            f"{path.name} is not dlib's face recognition network; at byte {reader.position:,}: {exc}.",
            hint="Use dlib_face_recognition_resnet_model_v1.dat of face_recognition_models 0.3.0.",
        ) from exc
    return network


class _Reader:
    """Reads dlib's basic types in sequence."""

    def __init__(self, data: bytes) -> None:
        self.position = 0
        self._data = data

    @property
    def is_done(self) -> bool:
        return self.position == len(self._data)

    def raw(self, count: int) -> bytes:
        part = self._data[self.position : self.position + count]
        if count < 0 or len(part) != count:
            raise ValueError("the file ends here")
        self.position += count
        return part

    def integer(self) -> int:
        (control,) = self.raw(1)
        magnitude = int.from_bytes(self.raw(control & 0x0F), "little")
        return -magnitude if control & 0x80 else magnitude

    def number(self) -> float:
        mantissa, exponent = self.integer(), self.integer()
        return float(mantissa) * 2.0**exponent

    def flag(self) -> bool:
        return {b"0": False, b"1": True}[self.raw(1)]

    def text(self) -> str:
        return self.raw(self.integer()).decode("ascii")

    def integers(self, count: int) -> tuple[int, ...]:
        return tuple(self.integer() for _ in range(count))

    def expect(self, value: object, wanted: object) -> None:
        if value != wanted:
            raise ValueError(f"{value!r} where {wanted!r} is expected")

    def tensor(self) -> Floats:
        """Read float32 (n, k, rows, columns)."""
        self.expect(self.integer(), 2)
        shape = self.integers(4)
        return np.frombuffer(self.raw(4 * int(np.prod(shape))), "<f4").reshape(shape)

    def alias(self) -> tuple[int, ...]:
        """Read the shape of a part of a tensor."""
        self.expect(self.integer(), 1)
        return self.integers(4)


def _network(reader: _Reader) -> DlibNetwork:
    reader.expect(reader.integer(), 1)
    reader.expect(reader.text(), LOSS)
    reader.number(), reader.number()  # margin and threshold of the loss, for training
    while reader.integer() != INNERMOST:
        pass  # a wrapper each: of a layer, a tag or a skip; the last two have no body
    reader.expect(reader.text(), INPUT)
    mean = (reader.number(), reader.number(), reader.number())
    side, _ = reader.integers(2)
    layers: list[DlibLayer] = []
    while not reader.is_done:
        layers.append(_layer(reader, is_first=not layers))
    return DlibNetwork(mean, side, tuple(layers))


def _layer(reader: _Reader, *, is_first: bool) -> DlibLayer:
    kind = reader.text()
    layer = DETAILS[kind](reader)
    for _ in range(3):
        reader.flag()
    for _ in range(3):
        reader.tensor()  # gradients and cached output, for training
    if is_first:
        reader.integer()  # sample expansion factor
    return layer


def _con(reader: _Reader) -> DlibLayer:
    parameters = reader.tensor().ravel()
    _, _, _, stride_y, stride_x, padding_y, padding_x = reader.integers(7)
    shape, _ = reader.alias(), reader.alias()
    for _ in range(4):
        reader.number()  # learning rates and weight decays
    count = int(np.prod(shape))
    kernel, bias = parameters[:count].reshape(shape), parameters[count:]
    return DlibLayer("con", (kernel, bias), (stride_y, stride_x), (padding_y, padding_x))


def _affine(reader: _Reader) -> DlibLayer:
    gamma, beta = np.split(reader.tensor().ravel(), 2)
    reader.alias(), reader.alias()
    reader.integer()
    return DlibLayer("affine", (gamma, beta))


def _pool(kind: str) -> Callable[[_Reader], DlibLayer]:
    def read(reader: _Reader) -> DlibLayer:
        _, _, stride_y, stride_x, padding_y, padding_x = reader.integers(6)
        return DlibLayer(kind, (), (stride_y, stride_x), (padding_y, padding_x))

    return read


def _fc(reader: _Reader) -> DlibLayer:
    reader.integer(), reader.integer()
    weights = reader.tensor()
    reader.alias(), reader.alias()
    reader.integer()
    for _ in range(4):
        reader.number()
    return DlibLayer("fc", (weights.reshape(weights.shape[0], -1),))


def _plain(kind: str) -> Callable[[_Reader], DlibLayer]:
    return lambda _: DlibLayer(kind)


DETAILS: dict[str, Callable[[_Reader], DlibLayer]] = {
    "con_4": _con,
    "affine_": _affine,
    "relu_": _plain("relu"),
    "add_prev_": _plain("add_prev"),
    "max_pool_2": _pool("max_pool"),
    "avg_pool_2": _pool("avg_pool"),
    "fc_2": _fc,
}
