"""Read the tensors of a PyTorch checkpoint into numpy, without torch and without running what the pickle names.

A checkpoint is a pickle whose tensors point into storages. Two layouts exist (torch/serialization.py, 2.13):

- since torch 1.6 a zip: `NAME/data.pkl`, and `NAME/data/KEY` for each storage, little-endian;
- before that one stream: three pickles (magic number, protocol, system), the pickle of the object, a pickle with the
  list of storage keys, and for each key an int64 with the number of elements, then the elements, little-endian.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from serving.contract.errors import InvalidData

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {  # torch's class for a storage: the type of its elements
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("<i1"),
    "ByteStorage": np.dtype("<u1"),
    "BoolStorage": np.dtype("?"),
}
NOT_READ = (pickle.UnpicklingError, zipfile.BadZipFile, EOFError, OSError, KeyError, ValueError, TypeError, IndexError)


@dataclass(slots=True)
class _Storage:
    """One run of numbers that tensors look into; `values` is filled before a tensor is made of it."""

    key: str
    dtype: np.dtype[Any]
    values: npt.NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor: a window on a storage, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> npt.NDArray[Any]:
        """A copy of what the window shows. Raises ValueError for a window that reaches past its storage."""
        values = self.storage.values
        if values is None or min(self.offset, *self.shape, *self.strides, 0) < 0:
            raise ValueError(f"storage {self.storage.key} has no such window")
        last = self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.strides, strict=True))
        if 0 not in self.shape and last >= len(values):
            raise ValueError(f"a tensor reaches past its storage {self.storage.key}")
        steps = tuple(step * values.itemsize for step in self.strides)
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, steps).copy()


def read_state_dict(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a checkpoint by name, as `model.state_dict()` was saved; `{"state_dict": ...}` is opened, too.

    Raises InvalidData for any other file, and for a pickle that holds anything but tensors and plain containers.
    """
    try:
        found = _from_zip(path) if zipfile.is_zipfile(path) else _from_stream(path)
        if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
            found = found["state_dict"]
        if not isinstance(found, Mapping) or not all(isinstance(view, _View) for view in found.values()):
            raise ValueError("it holds something else than named tensors")
        return {str(name): view.array() for name, view in found.items()}
    except NOT_READ as exc:
        raise InvalidData(
            f"{path} cannot be read as a PyTorch checkpoint: {exc}",
            hint="Save the weights alone: torch.save(model.state_dict(), path).",
        ) from exc


def _from_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        (entry,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        root = entry.removesuffix("data.pkl")
        unpickler = _Unpickler(io.BytesIO(archive.read(entry)))
        found = unpickler.load()
        for storage in unpickler.storages.values():
            storage.values = np.frombuffer(archive.read(f"{root}data/{storage.key}"), storage.dtype)
        return found


def _from_stream(path: Path) -> Any:
    with path.open("rb") as file:
        if _Unpickler(file).load() != LEGACY_MAGIC:
            raise ValueError("it does not begin like one")
        _protocol, _system = _Unpickler(file).load(), _Unpickler(file).load()
        unpickler = _Unpickler(file)
        found = unpickler.load()
        for key in _Unpickler(file).load():
            storage = unpickler.storages[key]
            storage.values = _elements(file, storage.dtype)
        return found


def _elements(file: BinaryIO, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    count = int.from_bytes(file.read(8), "little", signed=True)
    data = file.read(count * dtype.itemsize)
    if count < 0 or len(data) != count * dtype.itemsize:
        raise EOFError("it is cut off")
    return np.frombuffer(data, dtype)


class _Unpickler(pickle.Unpickler):
    """Unpickle containers, numbers, strings and views of storages; every other name in the pickle is refused."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Called by pickle for every name; what is returned may be called by the pickle."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) in (("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")):
            return _REBUILD[name]
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no tensor")

    def persistent_load(self, pid: Any) -> _Storage:
        """Called by pickle for a storage: ("storage", type, key, device, number of elements[, view])."""
        kind, dtype, key = pid[:3]
        if kind != "storage" or not isinstance(dtype, np.dtype) or any(pid[5:]):
            raise pickle.UnpicklingError(f"it refers to {pid[0]!r}")
        return self.storages.setdefault(key, _Storage(key, dtype))


def _tensor(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> _View:
    return _View(storage, offset, tuple(shape), tuple(strides))


def _parameter(view: _View, *_: Any) -> _View:
    return view


_REBUILD: dict[str, Callable[..., _View]] = {"_rebuild_tensor_v2": _tensor, "_rebuild_parameter": _parameter}
