"""A Keras model to a SavedModel that says what it is, with its golden examples and its warm-up requests."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.contract.card import CARD_FILE, CARD_INPUT, CARD_OUTPUT, CARD_SIGNATURE, ModelCard, card_to_json
from serving.contract.golden import GoldenExamples, write_golden

SIGNATURE, INPUT, OUTPUT = "serving_default", "image", "probabilities"
WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
WARMUP_BATCHES = (1, 8, 32)  # a graph is compiled for a shape when it first meets it


def write_version(folder: Path, model: Any, card: ModelCard, golden: GoldenExamples) -> None:
    """Everything that a version's directory holds. model: float32 (n, h, w, c) in 0-255 to probabilities (n, k)."""
    write_saved_model(folder, model, card)
    (folder / CARD_FILE).parent.mkdir(exist_ok=True)
    (folder / CARD_FILE).write_text(card_to_json(card) + "\n", encoding="utf-8")
    write_golden(folder, golden)
    write_warmup(folder, card, golden.tensors)


def write_saved_model(folder: Path, model: Any, card: ModelCard) -> None:
    """The graph and its variables, with the signatures `serving_default` and `model_card`."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]  # the arrays alone, without Keras's objects
    text = card_to_json(card)

    def classify(image: Any) -> dict[str, Any]:
        answer = model(tf.cast(image, tf.float32), training=False)
        return {OUTPUT: tf.cast(answer, tf.float32, name=OUTPUT)}

    def describe(probe: Any) -> dict[str, Any]:
        return {CARD_OUTPUT: tf.fill(tf.shape(probe), text, name=CARD_OUTPUT)}

    signatures = {
        SIGNATURE: tf.function(classify, [tf.TensorSpec(card.input.shape, card.input.dtype, name=INPUT)]),
        CARD_SIGNATURE: tf.function(describe, [tf.TensorSpec([None], tf.int32, name=CARD_INPUT)]),
    }
    tf.saved_model.save(module, str(folder), signatures=signatures)


def write_warmup(folder: Path, card: ModelCard, tensors: npt.NDArray[Any]) -> None:
    """Requests that TensorFlow Serving replays before it says that the version is available.

    Source: https://www.tensorflow.org/tfx/serving/saved_model_warmup
    """
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(folder / WARMUP_FILE)) as writer:
        for size in WARMUP_BATCHES:
            batch = np.resize(tensors, (size, *tensors.shape[1:]))
            writer.write(logged_request(card.name, card.input.signature, card.input.tensor, batch))
        writer.write(logged_request(card.name, CARD_SIGNATURE, CARD_INPUT, np.zeros(1, np.int32)))


def logged_request(model: str, signature: str, name: str, values: npt.NDArray[Any]) -> bytes:
    """One line of a file of warm-up requests."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
    serialized: bytes = log.SerializeToString()
    return serialized
