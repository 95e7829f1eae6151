"""Classic architectures at any size, without weights: VGG, GoogLeNet, ResNet-50. Builders as in `small`.

Batch normalisation replaces the auxiliary heads and careful schedules that their authors needed without it.
"""

from collections.abc import Sequence
from typing import Any

from export.networks.small import Shape

MEAN, SPREAD = 127.5, 127.5  # pixels to -1..1
SMALL = 64  # pixels; stems do not halve images up to this side

# Inception modules of GoogLeNet: filters of 1x1, 3x3 reduced, 3x3, 5x5 reduced, 5x5, pool projected; "pool" halves.
# Source: Szegedy et al., "Going deeper with convolutions", 2014, table 1.
GOOGLENET: Sequence[tuple[int, int, int, int, int, int] | str] = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    "pool",
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    "pool",
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)
# Stages of ResNet-50: filters and blocks. Source: He et al., "Deep residual learning", 2015, table 1.
RESNET50 = ((64, 3), (128, 4), (256, 6), (512, 3))
# Stages of VGG-16, configuration D: filters and convolutions. Source: Simonyan and Zisserman, 2014, table 1.
VGG = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def vggnet(shape: Shape, classes: int) -> Any:
    """VGG-16's convolutions, then global average pooling instead of its 120 million dense weights."""
    from keras import layers

    image, x = _input(shape)
    for filters, convolutions in VGG:
        for _ in range(convolutions):
            x = _convolved(x, filters, 3)
        if min(x.shape[1:3]) > 1:
            x = layers.MaxPooling2D()(x)
    return _output(image, x, classes, dropout=0.5)


def googlenet(shape: Shape, classes: int) -> Any:
    """GoogLeNet: a stem and nine inception modules."""
    from keras import layers

    image, x = _input(shape)
    x = _convolved(x, 64, 7, strides=2 if min(shape[:2]) > SMALL else 1)
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = _convolved(_convolved(x, 64, 1), 192, 3)
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for module in GOOGLENET:
        x = layers.MaxPooling2D(3, 2, padding="same")(x) if isinstance(module, str) else _inception(x, module)
    return _output(image, x, classes, dropout=0.4)


def resnet50(shape: Shape, classes: int) -> Any:
    """ResNet-50: a stem and sixteen bottleneck blocks; the first of each stage has a convolution in its shortcut."""
    from keras import layers

    image, x = _input(shape)
    x = _convolved(x, 64, 7, strides=2 if min(shape[:2]) > SMALL else 1)
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for stage, (filters, blocks) in enumerate(RESNET50):
        x = _convolution_block(x, filters, strides=1 if stage == 0 else 2)
        for _ in range(blocks - 1):
            x = _identity_block(x, filters)
    return _output(image, x, classes, dropout=0.0)


def _inception(x: Any, filters: tuple[int, int, int, int, int, int]) -> Any:
    from keras import layers

    one, three_in, three, five_in, five, pooled = filters
    pool = layers.MaxPooling2D(3, 1, padding="same")(x)
    branches = [
        _convolved(x, one, 1),
        _convolved(_convolved(x, three_in, 1), three, 3),
        _convolved(_convolved(x, five_in, 1), five, 5),
        _convolved(pool, pooled, 1),
    ]
    return layers.Concatenate()(branches)


def _identity_block(x: Any, filters: int) -> Any:
    from keras import layers

    return layers.ReLU()(layers.Add()([_bottleneck(x, filters, 1), x]))


def _convolution_block(x: Any, filters: int, strides: int) -> Any:
    from keras import layers

    shortcut = _convolved(x, 4 * filters, 1, strides=strides, activate=False)
    return layers.ReLU()(layers.Add()([_bottleneck(x, filters, strides), shortcut]))


def _bottleneck(x: Any, filters: int, strides: int) -> Any:
    x = _convolved(x, filters, 1, strides=strides)
    x = _convolved(x, filters, 3)
    return _convolved(x, 4 * filters, 1, activate=False)


def _convolved(x: Any, filters: int, size: int, *, strides: int = 1, activate: bool = True) -> Any:
    from keras import layers

    x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
    x = layers.BatchNormalization()(x)
    return layers.ReLU()(x) if activate else x


def _input(shape: Shape) -> tuple[Any, Any]:
    import keras
    from keras import layers

    image = keras.Input(shape)
    return image, layers.Rescaling(1 / SPREAD, offset=-MEAN / SPREAD)(image)


def _output(image: Any, x: Any, classes: int, dropout: float) -> Any:
    import keras
    from keras import layers

    x = layers.GlobalAveragePooling2D()(x)
    if dropout:
        x = layers.Dropout(dropout)(x)
    return keras.Model(image, layers.Dense(classes, activation="softmax", dtype="float32")(x))
