"""Read files that Keras 2 wrote: mend their configuration, so that Keras 3 can load them.

Keras 3 reads most of them. It refuses arguments that Keras 2 wrote for every layer of a kind (`batch_input_shape`,
`groups` of layers that have none), and takes a nested model with a list of one output for one with several.
Teachable Machine's files have all of that.
"""

import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

CONFIG, METADATA = "config.json", "metadata.json"  # members of a .keras file
REGISTERED = re.compile(r'"registered_name": "([^"]+>[^"]+)"')
WITHOUT_GROUPS = (
    "Conv2DTranspose",
    "Conv3DTranspose",
    "Conv1DTranspose",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "SeparableConv1D",
    "SeparableConv2D",
)
MODULES = {"Functional": "keras.src.models.functional", "Model": "keras", "Sequential": "keras"}


@contextmanager
def readable_by_keras3(path: Path) -> Iterator[Path]:
    """Give a file that Keras 3 can read: `path` itself, or a mended copy where Keras 2 wrote it."""
    is_zip = zipfile.is_zipfile(path)
    version = _zip_version(path) if is_zip else _hdf5_version(path)
    if not version.startswith(("1.", "2.")):
        yield path
        return
    with TemporaryDirectory(prefix="sightline-keras2-") as folder:
        copy = Path(folder) / f"model{'.keras' if is_zip else '.h5'}"
        _mend_zip(path, copy) if is_zip else _mend_hdf5(path, copy)
        yield copy


def stored_loss(path: Path) -> str:
    """Return the loss that a model was compiled with, in lower case letters: "binarycrossentropy"; "" for none."""
    try:
        stored = _zip_json(path, CONFIG).get("compile_config") if zipfile.is_zipfile(path) else _training_config(path)
    except (OSError, KeyError, ValueError):
        return ""
    loss = (stored or {}).get("loss")
    name = loss.get("class_name") if isinstance(loss, dict) else loss
    return "".join(letter for letter in name.lower() if letter.isalnum()) if isinstance(name, str) else ""


def registered_names(path: Path) -> set[str]:
    """Return the names under which own classes were registered when the file was written: {"my>Scale"}."""
    if not zipfile.is_zipfile(path):
        return set()
    try:
        return set(REGISTERED.findall(json.dumps(_zip_json(path, CONFIG))))
    except (OSError, KeyError, ValueError):
        return set()  # Keras says what is wrong with it


def mended(node: Any) -> Any:
    """Mend a configuration and all that is nested in it. Not modified."""
    if isinstance(node, list):
        return [mended(item) for item in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("class_name"), str) and isinstance(node.get("config"), dict):
        node = _mended_layer(node, node["class_name"], dict(node["config"]))
    return {key: mended(value) for key, value in node.items()}


def _mended_layer(node: dict[str, Any], kind: str, config: dict[str, Any]) -> dict[str, Any]:
    shape = config.pop("batch_input_shape", None)
    if kind == "InputLayer" and shape is not None:
        config["batch_shape"] = shape
    if kind in WITHOUT_GROUPS and config.get("groups") == 1:
        del config["groups"]
    for ends in ("input_layers", "output_layers"):
        if isinstance(config.get(ends), list) and len(config[ends]) == 1 and isinstance(config[ends][0], list):
            config[ends] = config[ends][0]
    axis = config.get("axis")
    if kind == "BatchNormalization" and isinstance(axis, list) and len(axis) == 1:
        config["axis"] = axis[0]
    if kind == "Sequential":
        config["layers"] = _with_input_layer(config.get("layers", []))
    changes = {"module": MODULES[kind]} if kind in MODULES and "module" in node else {}
    return {**node, **changes, "config": config}


def _with_input_layer(layers: list[Any]) -> list[Any]:
    """Put the shape that Keras 2 wrote into the first layer into an InputLayer before it."""
    first = layers[0] if layers else {}
    shape = first.get("config", {}).get("batch_input_shape") if isinstance(first.get("config"), dict) else None
    if shape is None or first.get("class_name") == "InputLayer":
        return layers
    name = f"{first['config'].get('name', 'image')}_input"
    layer = {"class_name": "InputLayer", "config": {"batch_shape": shape, "dtype": "float32", "name": name}}
    return [{**layer, **({"module": "keras.layers"} if "module" in first else {})}, *layers]


def _zip_json(path: Path, member: str) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        found: dict[str, Any] = json.loads(archive.read(member))
    return found


def _zip_version(path: Path) -> str:
    try:
        return str(_zip_json(path, METADATA).get("keras_version", ""))
    except (OSError, KeyError, ValueError):
        return ""  # Keras says what is wrong with it


def _mend_zip(path: Path, copy: Path) -> None:
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        for member in source.infolist():
            data = source.read(member)
            if member.filename == CONFIG:
                data = json.dumps(mended(json.loads(data))).encode()
            target.writestr(member, data)


def _hdf5_version(path: Path) -> str:
    import h5py

    try:
        with h5py.File(path) as file:
            return _text(file.attrs.get("keras_version", "")) if "model_config" in file.attrs else ""
    except OSError:
        return ""


def _training_config(path: Path) -> dict[str, Any]:
    import h5py

    with h5py.File(path) as file:
        found: dict[str, Any] = json.loads(_text(file.attrs["training_config"]))
    return found


def _mend_hdf5(path: Path, copy: Path) -> None:
    import h5py

    shutil.copyfile(path, copy)
    with h5py.File(copy, "r+") as file:
        file.attrs["model_config"] = json.dumps(mended(json.loads(_text(file.attrs["model_config"]))))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
