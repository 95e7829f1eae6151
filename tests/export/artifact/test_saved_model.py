"""The SavedModel of a version and its warm-up requests."""

from pathlib import Path

import pytest

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.integration


def test_warmup_requests_are_for_both_signatures(bars_version: Path) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    records = tf.data.TFRecordDataset(str(bars_version / "assets.extra" / "tf_serving_warmup_requests"))
    requests = [prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request for record in records]
    assert {request.model_spec.signature_name for request in requests} == {"serving_default", "model_card"}
    loaded = tf.saved_model.load(str(bars_version))
    for request in requests:
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        answer = loaded.signatures[request.model_spec.signature_name](**inputs)
        assert len(next(iter(answer.values()))) == len(next(iter(inputs.values())))
