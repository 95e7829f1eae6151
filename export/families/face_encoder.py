"""dlib's face encoder for TensorFlow Serving: a ResNet from faces to 128 numbers. Nothing is trained.

The network is that of dlib's dnn_face_recognition_ex.cpp (29 convolutions after He et al., "Deep residual learning",
2015), with the weights of the installed face_recognition_models. Per core it runs ten times as fast as dlib without
BLAS, takes batches, and uses a GPU where there is one. It is published only if its answers agree with dlib's.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from export.artifact.publishing import check_space, draft_version
from export.artifact.saved_model import WARMUP_BATCHES, WARMUP_FILE, logged_request
from export.artifact.tflite import write_tflite
from export.artifact.verify import open_saved_model
from export.networks.dlib_weights import DlibLayer, DlibNetwork, Floats, read_network
from export.progress import say
from serving.contract.errors import InvalidData, VerificationFailed
from serving.contract.golden import Proof, write_proof
from serving.faces.dlib.encoder import DlibEncoder
from serving.faces.dlib.weights import weights_file
from serving.faces.face import CHIP_SIDE, ENCODING_SIZE
from serving.faces.served_encoder import INPUT, MODEL, OUTPUT, PARITY, SIGNATURE, probe_chips
from serving.runtimes.runtime import replay
from serving.runtimes.tensorflow_start import start_tensorflow

SCALE = 1 / 256  # of a pixel after the mean is subtracted: dlib's input_rgb_image
SIZE_BYTES = 100_000_000  # of a version, with a margin

# (filters, plain blocks after the one that halves the image); the first stage has no halving block.
STAGES = ((32, 3), (64, 3), (128, 2), (256, 2), (256, 0))
CONVOLUTIONS = 29


@click.command("face-encoder")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("models"),
    show_default=True,
    help="Folder of models.",
)
@click.option("--name", default=MODEL, show_default=True, help="Name of the model; gateways use the default.")
def command(out: Path, name: str) -> None:
    """dlib's face encoder, in batches and on a GPU.

    \b
    sightline export face-encoder
    """
    click.echo(export(out, name))


def export(models: Path, name: str) -> Path:
    """Publish the encoder as the next version of models/name, with model.tflite. Returns the version's directory.

    Raises FacesNotInstalled, InvalidData for weights that are not dlib's, VerificationFailed where the reloaded model
    differs from dlib by more than PARITY.
    """
    network = read_network(weights_file("encoder"))
    with draft_version(models, name) as draft:
        check_space(models, SIZE_BYTES)
        start_tensorflow()
        write_version(draft.path, build(network), name)
        proof = proof_by_dlib()
        difference = require_parity(draft.path, proof)
        write_proof(draft.path, proof)
        write_tflite(draft.path, [SIGNATURE], proof)
        version = draft.publish()
    say(f"verified: largest difference from dlib {difference:.1e} ({PARITY:.0e} allowed)")
    return version


def build(network: DlibNetwork) -> Any:
    """Build a Keras model from chips (n, 150, 150, 3) in 0-255 to encodings, float32 (n, 128)."""
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
    """Write the SavedModel, `chips: uint8 [n, 150, 150, 3] -> encodings: float32 [n, 128]`, and warm-up requests."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]  # without Keras's objects

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
    """Encode the probe chips with dlib."""
    chips = probe_chips()
    return Proof(SIGNATURE, INPUT, OUTPUT, chips, DlibEncoder().encode(chips), PARITY)


def require_parity(folder: Path, proof: Proof) -> float:
    """Reload a version and compare it with dlib. Returns the largest difference; raises VerificationFailed."""
    runtime = open_saved_model(folder)
    difference = replay(runtime, proof)
    runtime.close()
    if not difference <= proof.atol:
        raise VerificationFailed(
            f"The exported face encoder differs from dlib by {difference:.1e}; {proof.atol:.0e} is allowed.",
            hint="Use the encoder dlib (SIGHTLINE_FACES_ENCODER=dlib), and report this.",
        )
    return difference


def _folded(network: DlibNetwork) -> Iterator[tuple[DlibLayer, Floats, Floats]]:
    """Fold the affine layer after each convolution into its kernel (rows, columns, in, out) and bias."""
    pairs = [
        (layer, following)
        for layer, following in zip(network.layers, network.layers[1:], strict=False)
        if layer.kind == "con"
    ]
    if len(pairs) != CONVOLUTIONS or any(following.kind != "affine" for _, following in pairs):
        raise InvalidData(
            f"There are {len(pairs)} convolutions; {CONVOLUTIONS} are expected, each followed by an affine layer.",
            hint="Use dlib_face_recognition_resnet_model_v1.dat of face_recognition_models 0.3.0.",
        )
    for layer, following in pairs:
        (kernel, bias), (gamma, beta) = layer.parameters, following.parameters
        folded = kernel * gamma[:, None, None, None]
        yield layer, folded.transpose(2, 3, 1, 0), bias * gamma + beta


def _convolution(values: Any, folded: tuple[DlibLayer, Floats, Floats]) -> Any:
    from keras import layers

    layer, kernel, bias = folded
    padding = "valid" if layer.padding == (0, 0) else "same"
    convolution = layers.Conv2D(kernel.shape[-1], kernel.shape[:2], layer.stride, padding=padding)
    result = convolution(values)
    convolution.set_weights([kernel, bias])
    return result


def _block(values: Any, first: Any, second: Any, *, halves: bool) -> Any:
    """Compute relu(second(relu(first(x))) + x); in a halving block, x is averaged 2 x 2."""
    from keras import layers

    inner = _convolution(layers.ReLU()(_convolution(values, first)), second)
    shortcut = layers.AveragePooling2D(2, 2)(values) if halves else values
    inner, shortcut = _pad_like(inner, shortcut), _pad_like(shortcut, inner)
    return layers.ReLU()(layers.Add()([inner, shortcut]))


def _pad_like(values: Any, other: Any) -> Any:
    """Pad with zeros at the bottom, the right and the last channels where `other` is larger, as dlib's add_prev."""
    from keras import layers

    rows, columns, channels = (max(0, b - a) for a, b in zip(values.shape[1:], other.shape[1:], strict=True))
    if rows or columns:
        values = layers.ZeroPadding2D(((0, rows), (0, columns)))(values)
    if channels:
        across = layers.Permute((1, 3, 2))(values)
        values = layers.Permute((1, 3, 2))(layers.ZeroPadding2D(((0, 0), (0, channels)))(across))
    return values
