"""Files as other programs write them: Keras 2, own layers, inputs of any form."""

import json
import zipfile
from pathlib import Path
from typing import Any

KERAS2 = "2.15.0"


def network(*layers: Any, shape: tuple[int | None, ...] = (12, 12, 3), dtype: str = "float32") -> Any:
    import keras

    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input(shape, dtype=dtype), *layers])


def small(activation: str | None = "softmax", units: int = 3, *before: Any, shape: Any = (12, 12, 3)) -> Any:
    import keras

    middle = [keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.GlobalAveragePooling2D()]
    return network(*before, *middle, keras.layers.Dense(units, activation=activation), shape=shape)


def nested(activation: str = "softmax") -> Any:
    """Nest models as Teachable Machine does: a Sequential of a Sequential around a graph, and of another one."""
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    x = keras.layers.BatchNormalization()(keras.layers.DepthwiseConv2D(3)(image))
    graph = keras.Model(image, keras.layers.Conv2DTranspose(4, 3)(x))
    body = keras.Sequential([keras.Input((16, 16, 3)), graph, keras.layers.GlobalAveragePooling2D()])
    head = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation=activation)])
    return keras.Sequential([keras.Input((16, 16, 3)), body, head])


def as_keras2(config: Any) -> Any:
    """Write a configuration of Keras 3 as Keras 2 did: each difference that a real file of it has."""
    if isinstance(config, list):
        return [as_keras2(item) for item in config]
    if not isinstance(config, dict):
        return config
    config = {key: as_keras2(value) for key, value in config.items()}
    kind, inner = config.get("class_name"), config.get("config")
    if kind == "DTypePolicy":
        return inner["name"]
    if kind == "InputLayer":
        inner["batch_input_shape"] = inner.pop("batch_shape")
    if kind in ("DepthwiseConv2D", "Conv2DTranspose"):
        inner["groups"] = 1
    if kind == "Rescaling":
        inner["batch_input_shape"] = [None, 12, 12, 3]
    if kind == "BatchNormalization":
        inner["axis"] = [3]
    for ends in ("input_layers", "output_layers"):
        if inner and ends in inner and isinstance(inner[ends][0], str):
            inner[ends] = [inner[ends]]
    return config


def save_as_keras2(model: Any, path: Path) -> Path:
    """Save a model, and write its configuration again as Keras 2 did."""
    import h5py

    model.save(path)
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = json.dumps(as_keras2(json.loads(file.attrs["model_config"])))
            file.attrs["keras_version"] = KERAS2
        return path
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = json.dumps(as_keras2(json.loads(members["config.json"]))).encode()
    members["metadata.json"] = json.dumps({"keras_version": KERAS2}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path
