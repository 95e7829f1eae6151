"""Small networks that are trained from scratch. A builder takes (shape (h, w, c), classes) and returns a Keras model.

The model maps float32 (n, h, w, c) in 0-255 to float32 probabilities (n, classes); its first layer scales to 0-1.
"""

from collections.abc import Callable
from typing import Any

Shape = tuple[int, int, int]
Builder = Callable[[Shape, int], Any]

L2 = 1e-4


def dense(shape: Shape, classes: int) -> Any:
    """One layer: multinomial logistic regression."""
    from keras import layers

    return _sequential(shape, classes, [layers.Flatten()])


def mlp(shape: Shape, classes: int) -> Any:
    """Three hidden layers with dropout."""
    from keras import layers

    hidden = [(512, 0.3), (256, 0.3), (128, 0.2)]
    stack = [layers.Flatten()]
    for units, rate in hidden:
        stack += [layers.Dense(units, activation="relu"), layers.Dropout(rate)]
    return _sequential(shape, classes, stack)


def lenet(shape: Shape, classes: int) -> Any:
    """LeNet-5 with tanh and average pooling. Source: LeCun et al. 1998, figure 2; softmax instead of RBF."""
    from keras import layers

    return _sequential(
        shape,
        classes,
        [
            layers.Conv2D(6, 5, padding="same", activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Conv2D(16, 5, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(120, activation="tanh"),
            layers.Dense(84, activation="tanh"),
        ],
    )


def cnn(shape: Shape, classes: int) -> Any:
    """Convolutions of 5 x 5 and 3 x 3 and a dense layer: best on MNIST within two minutes on two cores."""
    from keras import layers

    return _sequential(
        shape,
        classes,
        [
            layers.Conv2D(32, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.4),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.4),
        ],
    )


def cnn_gap(shape: Shape, classes: int) -> Any:
    """Global average pooling instead of a dense layer on flattened features: a twentieth of the parameters."""
    from keras import layers

    return _sequential(
        shape,
        classes,
        [
            *_normalised(16),
            *_normalised(16),
            layers.MaxPooling2D(),
            *_normalised(32),
            *_normalised(32),
            layers.MaxPooling2D(),
            *_normalised(64),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.2),
        ],
    )


def cnn_normalised(shape: Shape, classes: int) -> Any:
    """Narrow blocks with batch normalisation: better than `cnn` for few images and many epochs."""
    from keras import layers

    return _sequential(
        shape,
        classes,
        [
            *_normalised(16),
            *_normalised(16),
            layers.MaxPooling2D(),
            layers.Dropout(0.1),
            *_normalised(32),
            *_normalised(32),
            layers.MaxPooling2D(),
            layers.Dropout(0.2),
            *_normalised(64),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.3),
        ],
    )


def cifar_cnn(shape: Shape, classes: int) -> Any:
    """Two blocks of two convolutions and a dense layer, for small colour images."""
    from keras import layers

    def block(filters: int) -> list[Any]:
        return [
            layers.Conv2D(filters, 3, padding="same", activation="relu"),
            layers.Conv2D(filters, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
        ]

    return _sequential(
        shape,
        classes,
        [*block(32), *block(64), layers.Flatten(), layers.Dense(512, activation="relu"), layers.Dropout(0.5)],
    )


def cifar_cnn_bn(shape: Shape, classes: int) -> Any:
    """He initialisation, batch normalisation, L2 and global average pooling, for small colour images.

    Sources: He et al., "Delving deep into rectifiers", 2015; Lin et al., "Network in network", 2013.
    """
    from keras import layers

    stack: list[Any] = []
    for filters, rate in ((32, 0.2), (64, 0.3), (128, 0.4)):
        stack += [*_normalised(filters, l2=L2), *_normalised(filters, l2=L2)]
        stack += [layers.MaxPooling2D(), layers.Dropout(rate)]
    return _sequential(shape, classes, [*stack, layers.GlobalAveragePooling2D()])


SMALL_GRAY: dict[str, Builder] = {"cnn": cnn, "dense": dense, "mlp": mlp, "lenet": lenet, "cnn-gap": cnn_gap}
SMALL_RGB: dict[str, Builder] = {"cnn-bn": cifar_cnn_bn, "cnn": cifar_cnn}


def _sequential(shape: Shape, classes: int, stack: list[Any]) -> Any:
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Rescaling(1 / 255),
            *stack,
            layers.Dense(classes, activation="softmax", dtype="float32"),
        ]
    )


def _normalised(filters: int, l2: float = 0.0) -> list[Any]:
    from keras import layers, regularizers

    return [
        layers.Conv2D(
            filters,
            3,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=regularizers.L2(l2) if l2 else None,
        ),
        layers.BatchNormalization(),
        layers.ReLU(),
    ]
