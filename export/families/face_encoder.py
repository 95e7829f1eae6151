"""Faces to 128 numbers: dlib's ResNet, rewritten for TensorFlow Serving. Nothing is trained.

The network is that of dlib's dnn_face_recognition_ex.cpp (29 convolutions after He et al., "Deep residual learning",
2015), the weights are those of the installed face_recognition_models. Core for core it runs ten times as fast as dlib
without BLAS, in batches, and on a GPU where there is one. The version is published only if it says what dlib says.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from export.artifact.publishing import check_space, drafted, sweep
from export.artifact.saved_model import WARMUP_BATCHES, WARMUP_FILE, logged_request
from export.artifact.tflite import write_tflite
from export.networks.dlib_weights import Floats, Layer, Network, read_network
from export.progress import say
from serving.contract.errors import InvalidData, VerificationFailed
from serving.contract.golden import Proof, write_proof
from serving.faces.dlib.encoder import DlibEncoder
from serving.faces.dlib.weights import weights_file
from serving.faces.face import CHIP_SIDE, ENCODING_SIZE, Chips, Encodings
from serving.faces.served_encoder import INPUT, MODEL, OUTPUT, PARITY, SIGNATURE, probe_chips
from serving.runtimes.tensorflow_start import start_tensorflow

SCALE = 1 / 256  # of a pixel after the mean is subtracted: dlib's input_rgb_image
SIZE_BYTES = 100_000_000  # of a version, with something to spare

# (filters, how many plain blocks follow the one that halves the picture); the first stage halves nothing.
STAGES = ((32, 3), (64, 3), (128, 2), (256, 2), (256, 0))
CONVOLUTIONS = 29


@click.command("face-encoder")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("models"),
    show_default=True,
    help="The models' folder.",
)
@click.option("--name", default=MODEL, show_default=True, help="The model's name; gateways ask for the default.")
def command(out: Path, name: str) -> None:
    """dlib's face encoder, for faces in batches and on a GPU.

    \b
    sightline export face-encoder
    """
    click.echo(export(out, name))


def export(models: Path, name: str) -> Path:
    """Publish the encoder as the next version of models/name, for LiteRT too, and return its directory.

    Raises FacesNotInstalled, InvalidData for weights that are not dlib's, VerificationFailed where the reloaded model
    differs from dlib by more than PARITY.
    """
    network = read_network(weights_file("encoder"))
    for path in sweep(models, name):
        say(f"removed {path}: an export that was killed had left it")
    with drafted(models, name) as draft:
        check_space(models, SIZE_BYTES)
        start_tensorflow()
        write_version(draft.path, build(network), name)
        proof = proof_by_dlib()
        difference = verify(draft.path, proof)
        write_proof(draft.path, proof)
        write_tflite(draft.path, [SIGNATURE], proof)
        version = draft.publish()
    say(f"verified: largest difference from dlib {difference:.1e}, {PARITY:.0e} is allowed")
    return version


def build(network: Network) -> Any:
    """The network as a Keras model: chips (n, 150, 150, 3) in 0-255 to encodings float32 (n, 128)."""
    import keras
    from keras import layers

    convolutions = _folded(network)
    chips = keras.Input((CHIP_SIDE, CHIP_SIDE, 3))
    values = layers.Rescaling(SCALE, [-mean * SCALE for mean in network.mean])(chips)
    values = layers.ReLU()(_convolution(values, next(convolutions)))
    values = layers.MaxPooling2D(3, 2)(values)
    for stage, (_, blocks) in enumerate(STAGES):
        if stage > 0:
            values = _block(values, next(convolutions), next(convolutions), halves=True)
        for _ in range(blocks):
            values = _block(values, next(convolutions), next(convolutions), halves=False)
    values = layers.GlobalAveragePooling2D()(values)
    (weights,) = network.layers[-1].parameters
    dense = layers.Dense(ENCODING_SIZE, use_bias=False)
    model = keras.Model(chips, dense(values))
    dense.set_weights([weights])
    return model


def write_version(folder: Path, model: Any, name: str) -> None:
    """The SavedModel, `chips: uint8 [n, 150, 150, 3] -> encodings: float32 [n, 128]`, and its warm-up requests."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]  # the arrays alone, without Keras's objects

    def encode(chips: Any) -> dict[str, Any]:
        return {OUTPUT: tf.identity(model(tf.cast(chips, tf.float32), training=False), name=OUTPUT)}

    spec = tf.TensorSpec([None, CHIP_SIDE, CHIP_SIDE, 3], tf.uint8, name=INPUT)
    tf.saved_model.save(module, str(folder), signatures={SIGNATURE: tf.function(encode, [spec])})
    (folder / WARMUP_FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / WARMUP_FILE)) as writer:
        for size in WARMUP_BATCHES:
            batch = np.resize(probe_chips(), (size, CHIP_SIDE, CHIP_SIDE, 3))
            writer.write(logged_request(name, SIGNATURE, INPUT, batch))


def proof_by_dlib() -> Proof:
    """What dlib says of the probe chips."""
    chips = probe_chips()
    return Proof(SIGNATURE, INPUT, OUTPUT, chips, DlibEncoder().encode(chips), PARITY)


def verify(folder: Path, proof: Proof) -> float:
    """Reload a version and hold it against dlib. Returns the largest difference; raises VerificationFailed."""
    difference = proof.difference(encode_with(folder, proof.given))
    if not difference <= proof.atol:
        raise VerificationFailed(
            f"the exported face encoder differs from dlib by {difference:.1e}; {proof.atol:.0e} is allowed",
            hint="Use the encoder dlib (SIGHTLINE_FACES_ENCODER=dlib), and report this.",
        )
    return difference


def encode_with(folder: Path, chips: Chips) -> Encodings:
    """What the version in `folder` says, in this process. Returns float32 (n, 128)."""
    import tensorflow as tf

    signature = tf.saved_model.load(str(folder)).signatures[SIGNATURE]
    encodings: Encodings = signature(**{INPUT: tf.constant(chips)})[OUTPUT].numpy()
    return encodings


def _folded(network: Network) -> Iterator[tuple[Layer, Floats, Floats]]:
    """Each convolution with the affine layer after it folded into its kernel (rows, columns, in, out) and bias."""
    pairs = [
        (layer, following)
        for layer, following in zip(network.layers, network.layers[1:], strict=False)
        if layer.kind == "con"
    ]
    if len(pairs) != CONVOLUTIONS or any(following.kind != "affine" for _, following in pairs):
        raise InvalidData(
            f"{len(pairs)} convolutions, each with an affine layer, where {CONVOLUTIONS} are expected",
            hint="Use dlib_face_recognition_resnet_model_v1.dat of face_recognition_models 0.3.0.",
        )
    for layer, following in pairs:
        (kernel, bias), (gamma, beta) = layer.parameters, following.parameters
        folded = kernel * gamma[:, None, None, None]
        yield layer, folded.transpose(2, 3, 1, 0), bias * gamma + beta


def _convolution(values: Any, folded: tuple[Layer, Floats, Floats]) -> Any:
    from keras import layers

    layer, kernel, bias = folded
    same = layer.padding != (0, 0)
    made = layers.Conv2D(kernel.shape[-1], kernel.shape[:2], layer.stride, padding="same" if same else "valid")
    result = made(values)
    made.set_weights([kernel, bias])
    return result


def _block(values: Any, first: Any, second: Any, *, halves: bool) -> Any:
    """relu(second(relu(first(x))) + x), where x is averaged 2 x 2 in a block that halves."""
    from keras import layers

    inner = _convolution(layers.ReLU()(_convolution(values, first)), second)
    shortcut = layers.AveragePooling2D(2, 2)(values) if halves else values
    inner, shortcut = _grown(inner, shortcut), _grown(shortcut, inner)
    return layers.ReLU()(layers.Add()([inner, shortcut]))


def _grown(values: Any, other: Any) -> Any:
    """Zeros added below, at the right, and as last channels, where `other` is larger: what dlib's add_prev does."""
    from keras import layers

    rows, columns, channels = (max(0, b - a) for a, b in zip(values.shape[1:], other.shape[1:], strict=True))
    if rows or columns:
        values = layers.ZeroPadding2D(((0, rows), (0, columns)))(values)
    if channels:
        across = layers.Permute((1, 3, 2))(values)
        values = layers.Permute((1, 3, 2))(layers.ZeroPadding2D(((0, 0), (0, channels)))(across))
    return values
