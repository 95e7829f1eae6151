"""Checkpoints in both layouts, written here byte for byte as torch writes them: torch itself is not needed."""

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from export.networks.torch_weights import LEGACY_MAGIC, read_state_dict
from serving.contract.errors import InvalidData

VALUES = np.arange(12, dtype=np.float32)


class Storage:
    """Stands for a run of numbers while a checkpoint is written."""


class Tensor:
    """A window on VALUES that pickles as torch's tensors do."""

    def __init__(self, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.window = offset, shape, strides

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (Storage(), *self.window, False, OrderedDict())


class Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> Any:
        float_storage = sys.modules["torch"].FloatStorage
        return ("storage", float_storage, "0", "cpu", len(VALUES), None) if isinstance(value, Storage) else None


@pytest.fixture(autouse=True)
def torch_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules with torch's names, for the pickler to find what it writes the names of."""
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})  # type: ignore[attr-defined]

    def _rebuild_tensor_v2(*_: Any) -> None: ...

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def as_zip(path: Path, value: object) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickled(value))
        archive.writestr("model/data/0", VALUES.tobytes())


def as_stream(path: Path, value: object) -> None:
    head = [pickle.dumps(each, protocol=2) for each in (LEGACY_MAGIC, 1001, {"little_endian": True})]
    tail = [pickle.dumps(["0"], protocol=2), len(VALUES).to_bytes(8, "little"), VALUES.tobytes()]
    path.write_bytes(b"".join([*head, pickled(value), *tail]))


LAYOUTS = pytest.mark.parametrize("write", [as_zip, as_stream])


@LAYOUTS
def test_tensors_are_read_with_their_strides(write: Callable[[Path, object], None], tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    write(path, OrderedDict(plain=Tensor(0, (3, 4), (4, 1)), turned=Tensor(0, (4, 3), (1, 4)), last=Tensor(11, (), ())))
    read = read_state_dict(path)
    np.testing.assert_array_equal(read["plain"], VALUES.reshape(3, 4))
    np.testing.assert_array_equal(read["turned"], VALUES.reshape(3, 4).T)
    assert read["last"] == 11


@LAYOUTS
def test_a_checkpoint_of_a_training_is_opened_at_its_state_dict(
    write: Callable[[Path, object], None], tmp_path: Path
) -> None:
    path = tmp_path / "training.pth"
    write(path, {"epoch": 3, "state_dict": {"weight": Tensor(2, (2,), (1,))}})
    np.testing.assert_array_equal(read_state_dict(path)["weight"], [2, 3])


@LAYOUTS
@pytest.mark.parametrize("window", [(0, (13,), (1,)), (0, (4,), (4,)), (-1, (2,), (1,)), (11, (2,), (-1,))])
def test_a_tensor_that_reaches_past_its_storage_is_refused(
    write: Callable[[Path, object], None], window: tuple[Any, ...], tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    write(path, {"weight": Tensor(*window)})
    with pytest.raises(InvalidData):
        read_state_dict(path)


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("a pickle ran code",)


@LAYOUTS
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(
    write: Callable[[Path, object], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "evil.pth"
    write(path, {"weight": Runs()})
    with pytest.raises(InvalidData, match=r"__builtin__\.print"):
        read_state_dict(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps([1, 2])])
def test_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(InvalidData, match="cannot be read as a PyTorch checkpoint"):
        read_state_dict(path)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    as_stream(path, {"weight": Tensor(0, (12,), (1,))})
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InvalidData, match="cut off"):
        read_state_dict(path)
