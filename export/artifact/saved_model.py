"""Write a SavedModel with its card, golden examples and warm-up requests."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.trained_model import Servable
from serving.contract.card import CARD_FILE, CARD_INPUT, CARD_OUTPUT, CARD_SIGNATURE, ModelCard, card_to_json
from serving.contract.golden import GoldenExamples, write_golden
from serving.contract.manifest import MANIFEST_FILE
from serving.contract.versions import SAVED_MODEL_FILE, SERVE_TAG, TFLITE_FILE

SIGNATURE, INPUT, OUTPUT = "serving_default", "image", "probabilities"
NOTICE_FILE = Path("assets.extra") / "NOTICE"  # of the licence of weights that others made
WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
WARMUP_BATCHES = (1, 8, 32)  # the first request of a shape is slow
WARMUP_BYTES = 8_000_000  # upper bound of a request; photos are warmed up in smaller batches


def write_version(folder: Path, servable: Servable, card: ModelCard, golden: GoldenExamples, notice: str = "") -> None:
    """Write all files of a version but model.tflite. notice: "" where the licence of no weights asks for one."""
    if servable.copied_from:
        copy_saved_model(folder, servable.copied_from, card)
    else:
        write_saved_model(folder, servable, card)
    (folder / CARD_FILE).parent.mkdir(exist_ok=True)
    (folder / CARD_FILE).write_text(card_to_json(card) + "\n", encoding="utf-8")
    if notice:
        (folder / NOTICE_FILE).write_text(notice, encoding="utf-8")
    write_golden(folder, golden)
    write_warmup(folder, card, golden.tensors)


def write_saved_model(folder: Path, servable: Servable, card: ModelCard) -> None:
    """Write the graph and its variables, with the signatures `serving_default` and `model_card`."""
    import tensorflow as tf

    module = tf.Module()
    module.kept = list(servable.kept)
    text = card_to_json(card)

    def classify(image: Any) -> dict[str, Any]:
        return {OUTPUT: tf.identity(servable.call(image), name=OUTPUT)}

    def describe(probe: Any) -> dict[str, Any]:
        return {CARD_OUTPUT: tf.fill(tf.shape(probe), text, name=CARD_OUTPUT)}

    signatures = {
        SIGNATURE: tf.function(classify, [tf.TensorSpec(card.input.shape, card.input.dtype, name=INPUT)]),
        CARD_SIGNATURE: tf.function(describe, [tf.TensorSpec([None], tf.int32, name=CARD_INPUT)]),
    }
    tf.saved_model.save(module, str(folder), signatures=signatures)


def copy_saved_model(folder: Path, source: Path, card: ModelCard) -> None:
    """Copy a SavedModel and add the signature `model_card` to its graph; nothing else of it changes.

    The manifest and the model.tflite of a source that is a version of Sightline's stay behind: they hold its old card.

    The signature is four nodes (a placeholder, its shape, the card's text, a fill) in the meta graph that TensorFlow
    Serving loads, so that a gateway reads this card over gRPC like any other.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    shutil.copytree(source, folder, dirs_exist_ok=True)
    for stale in (MANIFEST_FILE, TFLITE_FILE):
        (folder / stale).unlink(missing_ok=True)
    path = folder / SAVED_MODEL_FILE
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    with tf.Graph().as_default() as graph:
        with tf.name_scope("sightline"):
            probe = tf.compat.v1.placeholder(tf.int32, [None], name=CARD_INPUT)
            answer = tf.fill(tf.shape(probe), card_to_json(card), name=CARD_OUTPUT)
        signature = tf.compat.v1.saved_model.signature_def_utils.predict_signature_def(
            {CARD_INPUT: probe}, {CARD_OUTPUT: answer}
        )
    for meta_graph in saved.meta_graphs:
        if SERVE_TAG in meta_graph.meta_info_def.tags:
            meta_graph.graph_def.node.extend(graph.as_graph_def().node)
            meta_graph.signature_def[CARD_SIGNATURE].CopyFrom(signature)
    path.write_bytes(saved.SerializeToString(deterministic=True))


def write_warmup(folder: Path, card: ModelCard, tensors: npt.NDArray[Any]) -> None:
    """Write the requests that TensorFlow Serving replays before it reports the version as available.

    Source: https://www.tensorflow.org/tfx/serving/saved_model_warmup
    """
    import tensorflow as tf

    (folder / WARMUP_FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / WARMUP_FILE)) as writer:
        for size in WARMUP_BATCHES:
            batch = np.resize(tensors, (size, *tensors.shape[1:]))
            if batch.nbytes <= WARMUP_BYTES or size == 1:
                writer.write(logged_request(card.name, card.input.signature, card.input.tensor, batch))
        writer.write(logged_request(card.name, CARD_SIGNATURE, CARD_INPUT, np.zeros(1, np.int32)))


def logged_request(model: str, signature: str, name: str, values: npt.NDArray[Any]) -> bytes:
    """Serialize a Predict request as a record of the warm-up file."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
    serialized: bytes = log.SerializeToString()
    return serialized
