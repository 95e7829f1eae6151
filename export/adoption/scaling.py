"""The scaling that a model was trained with: said, or found in the model. It is never guessed."""

from dataclasses import dataclass, replace
from typing import Any

from export.adoption.loaded_model import LoadedModel
from export.networks.keras_graph import KerasModel, first_operations, graph_of
from export.networks.pretrained import BACKBONES, CAFFE_MEAN, TORCH_MEAN, TORCH_STD
from serving.contract.errors import UsageError
from serving.contract.preprocessing import ChannelOrder

Numbers = tuple[float, ...]  # one for all channels, or one for each


@dataclass(frozen=True, slots=True)
class Scaling:
    """(pixel x scale - mean) / std, of pixels from 0 to 255 in `channel_order`. origin: for people, who says so."""

    scale: float = 1.0
    mean: Numbers = (0.0,)
    std: Numbers = (1.0,)
    channel_order: ChannelOrder = "rgb"
    origin: str = ""

    def __str__(self) -> str:
        """Write it for people, in pixels and numbers."""
        if replace(self, origin="") == Scaling():
            return f"none: the model gets pixels of 0 to 255 ({self.origin})"
        mean, std = (" ".join(f"{number:g}" for number in numbers) for numbers in (self.mean, self.std))
        steps = [f"pixel x {self.scale:.6g}", *([f"minus {mean}"] if any(self.mean) else [])]
        steps += [f"over {std}"] if set(self.std) != {1.0} else []
        steps += ["blue first"] if self.channel_order == "bgr" else []
        return f"{', '.join(steps)} ({self.origin})"

    def in_graph(self, image: Any) -> Any:
        """Scale a float32 tensor (n, h, w, c). Not modified."""
        import tensorflow as tf

        if self.channel_order == "bgr":
            image = tf.reverse(image, [-1])
        if self.scale != 1:
            image = image * self.scale
        if any(self.mean):
            image = image - tf.constant(self.mean, tf.float32)
        return image if set(self.std) == {1.0} else image / tf.constant(self.std, tf.float32)

    def card_fields(self, channels: int) -> dict[str, Any]:
        """The fields of `Preprocessing` for a model that takes float32."""
        mean, std = (numbers * channels if len(numbers) == 1 else numbers for numbers in (self.mean, self.std))
        return {
            "dtype": "float32",
            "scale": self.scale,
            "mean": mean,
            "std": std,
            "channel_order": self.channel_order,
        }


# name: the range of the pixels that the model was trained on
NAMED = {
    "raw": Scaling(),
    "unit": Scaling(1 / 255),
    "tf": Scaling(1 / 127.5, mean=(1.0,)),
    "torch": Scaling(1 / 255, mean=TORCH_MEAN, std=TORCH_STD),
    "caffe": Scaling(mean=CAFFE_MEAN, channel_order="bgr"),
}
RANGES = {
    "raw": "0 to 255",
    "unit": "0 to 1",
    "tf": "-1 to 1",
    "torch": "z-score of ImageNet",
    "caffe": "BGR minus ImageNet's mean",
}
CHOICES = (
    "--preprocess raw (0 to 255, also for a model that scales its input itself), unit (0 to 1: `rescale=1/255`, "
    "`ToTensor()`), tf (-1 to 1), torch (z-score of ImageNet: `Normalize`), caffe (BGR minus ImageNet's mean: VGG16 "
    "and ResNet50 of keras.applications); or numbers, for (pixel x scale - mean) / std: --scale, --mean, --std, "
    "--channel-order"
)
UNIT_FACTORS = (1 / 300, 1 / 100)  # a factor between these brings 0-255 to about 0-1 or -1-1
SMALL_FACTORS = (0.5, 4.0)  # and one between these brings 0-1 to some such range
PIXEL_MEAN, PIXEL_DEVIATION = 2.0, 1.0  # above them, a Normalization was adapted to 0-255, not to 0-1
TRANSPARENT = (
    "InputLayer",
    "Sequential",
    "Functional",
    "Model",
    "Identity",
    "Cast",
    "Resizing",
    "CenterCrop",
    "ZeroPadding2D",
    "Dropout",
    "GaussianNoise",
    "Reshape",
    "Flatten",
    "Permute",
)  # kinds of operations that leave the range of pixels as it is; Random* are, too
# The first convolution of those keras.applications networks that do not scale their input themselves, by Keras's module
FIRST_CONVOLUTION = {
    "vgg16": "block1_conv1",
    "vgg19": "block1_conv1",
    "resnet": "conv1_conv",
    "resnet_v2": "conv1_conv",
    "inception_v3": "conv2d",
    "inception_resnet_v2": "conv2d",
    "xception": "block1_conv1",
    "mobilenet": "conv1",
    "mobilenet_v2": "Conv1",
    "densenet": "conv1_conv",
    "nasnet": "stem_conv1",
}


def scaling_said(
    name: str | None, scale: float | None, mean: Numbers | None, std: Numbers | None, order: ChannelOrder | None
) -> Scaling | None:
    """Read the options; None where none was given. Raises UsageError for --preprocess beside numbers."""
    given: dict[str, Any] = {"scale": scale, "mean": mean, "std": std, "channel_order": order}
    numbers = {field: value for field, value in given.items() if value is not None}
    if name is not None and numbers:
        flags = ", ".join(f"--{field.replace('_', '-')}" for field in numbers)
        raise UsageError(
            f"--preprocess {name} and {flags} both say how pixels are scaled.",
            hint="Leave one out: --preprocess is a name for such numbers.",
        )
    if name is not None:
        return replace(NAMED[name], origin=f"--preprocess {name}")
    if not numbers:
        return None
    if std is not None and 0 in std:
        raise UsageError("--std holds a zero; pixels are divided by it.")
    return Scaling(**numbers, origin="the numbers given")


def scaling_of(loaded: LoadedModel, said: Scaling | None, channels: int) -> Scaling:
    """Settle the scaling. Raises UsageError where it is not known, or cannot be applied to the model's input."""
    if said is not None:
        _require_channels(said, channels)
    if loaded.takes_integers:
        if said is not None and replace(said, origin="") != NAMED["raw"]:
            raise UsageError(
                f"The model takes {loaded.dtype} pixels: it scales them itself, and {said.origin} would leave nothing "
                "but zeros and ones of them.",
                hint="Leave the scaling out, or say --preprocess raw.",
            )
        return replace(NAMED["raw"], origin=f"the model takes {loaded.dtype}")
    found = said or (found_in_model(loaded.core) if loaded.core is not None else None)
    if found is None:
        raise UsageError(
            "How the model's pixels are scaled is not known: the file does not say, and a wrong guess gives wrong "
            "answers without any error.",
            hint=f"Say how they were scaled in training: {CHOICES}.",
        )
    _require_channels(found, channels)
    return found


def found_in_model(model: KerasModel) -> Scaling | None:
    """Find the scaling in a Keras model: in its first layers, else in the name of its network; None without either."""
    network = _application(model.name)
    for operation, numbers in first_operations(model):
        kind = type(operation).__name__
        if graph_of(operation) is not None:
            network = network or _application(operation.name)
            continue
        if kind.startswith("Random") or kind in TRANSPARENT:
            continue
        range_ = _range_wanted(operation, kind, numbers)
        if range_:
            return replace(NAMED[range_], origin=f"the model's layer {operation.name} ({kind})")
        if network and operation.name.startswith(FIRST_CONVOLUTION.get(BACKBONES[network].module, "\0")):
            return replace(NAMED[BACKBONES[network].mode], origin=f"keras.applications' {network} was trained with it")
        return None
    return None


def scales_itself(model: KerasModel | None) -> str:
    """Name the layer with which a model scales its input itself; "" where it has none."""
    found = found_in_model(model) if model is not None else None
    return found.origin if found and found.origin.startswith("the model's layer") else ""


def _range_wanted(operation: Any, kind: str, numbers: Numbers) -> str:
    """The pixels that a scaling layer expects, `raw` or `unit`; "" for any other layer."""
    if kind == "Rescaling" and isinstance(operation.scale, int | float):
        return _range_of_factor(float(operation.scale))
    if kind in ("TrueDivide", "Divide") and len(numbers) == 1 and numbers[0]:
        return _range_of_factor(1 / numbers[0])
    if kind == "Multiply" and len(numbers) == 1:
        return _range_of_factor(numbers[0])
    if kind == "Normalization":
        return _range_of_normalization(operation)
    return ""


def _range_of_factor(factor: float) -> str:
    if UNIT_FACTORS[0] <= factor <= UNIT_FACTORS[1]:
        return "raw"
    return "unit" if SMALL_FACTORS[0] <= factor <= SMALL_FACTORS[1] and factor != 1 else ""


def _range_of_normalization(layer: Any) -> str:
    """A mean above 2 is one of 0-255; deviations below 1 and a mean of 0-1 are those of 0-1. Between, nobody knows."""
    import numpy as np

    if getattr(layer, "mean", None) is None or getattr(layer, "invert", False):
        return ""
    mean, deviation = np.asarray(layer.mean), np.sqrt(np.asarray(layer.variance))
    if mean.min() > PIXEL_MEAN and deviation.min() > PIXEL_DEVIATION:
        return "raw"
    return "unit" if mean.min() > 0 and mean.max() < 1 and deviation.max() < PIXEL_DEVIATION else ""


def _application(name: str) -> str:
    """The row of BACKBONES that a name of a keras.applications network means; "" for any other name.

    Keras writes mobilenetv2_1.00_224, resnet50v2, inception_v3, NASNet.
    """
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    if plain == "nasnet":
        return "nasnetmobile"
    fitting = [row for row in BACKBONES if plain.startswith(row) and plain.removeprefix(row).strip("0123456789") == ""]
    return max(fitting, key=len, default="")


def _require_channels(scaling: Scaling, channels: int) -> None:
    for numbers, name in ((scaling.mean, "mean"), (scaling.std, "std")):
        if len(numbers) not in (1, channels):
            raise UsageError(
                f"The model takes {'color' if channels == 3 else 'gray'} images, of {channels} channel"
                f"{'s' if channels > 1 else ''}; {scaling.origin} has {len(numbers)} numbers of {name}.",
                hint="Give one number for all channels, or one for each.",
            )
    if scaling.channel_order == "bgr" and channels == 1:
        raise UsageError("--channel-order bgr is for color images; the model takes gray ones.")
