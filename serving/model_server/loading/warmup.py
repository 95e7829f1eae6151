"""Warm-up: recorded requests that a version answers before it is available.

Source: tensorflow_serving/servables/tensorflow/saved_model_warmup_util.cc.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from serving.model_server.calls import tf_examples
from serving.model_server.calls.predict import predict
from serving.model_server.loading.tfrecord import DamagedRecord, read_records
from serving.model_server.metrics import Metrics
from serving.runtimes.messages import (
    classification_pb2,
    inference_pb2,
    predict_pb2,
    prediction_log_pb2,
    regression_pb2,
)
from serving.runtimes.runtime import Runtime
from serving.runtimes.status import CallError, invalid_argument

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_RECORDS = 1000


def warm_up(model: Runtime, directory: Path, metrics: Metrics, iterations: int = 1) -> int:
    """Replay the version's recorded requests, each `iterations` times. Returns how many there are; 0 without a file.

    Raises CallError: any request that fails is a load that fails.
    """
    path = directory / WARMUP_FILE
    if not path.is_file():
        return 0
    started, count = time.monotonic(), 0
    for count, record in enumerate(_records(path), start=1):
        if count > MAX_RECORDS:
            raise invalid_argument(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}")
        metrics.warmup_records.add(str(directory))
        for _ in range(iterations):
            _replay(model, record)
    metrics.warmup_latency.observe((time.monotonic() - started) * 1e6, str(directory), "OK")
    return count


def _records(path: Path) -> Iterator[Any]:
    try:
        for data in read_records(path):
            yield _parsed(data, path)
    except (DamagedRecord, OSError) as exc:
        message = f"{exc}. Please verify your warmup data is in TFRecord format."
        raise CallError(grpc.StatusCode.DATA_LOSS, message) from exc


def _parsed(data: bytes, path: Path) -> Any:
    try:
        return prediction_log_pb2.PredictionLog.FromString(data)
    except DecodeError as exc:
        raise invalid_argument(f"Failed to parse warmup record: {path}") from exc


def _replay(model: Runtime, record: Any) -> None:
    kind = record.WhichOneof("log_type")
    if kind == "predict_log":
        predict(model, record.predict_log.request, predict_pb2.PredictResponse().outputs, None)
    elif kind == "classify_log":
        tf_examples.classify(model, record.classify_log.request, classification_pb2.ClassificationResult(), None)
    elif kind == "regress_log":
        tf_examples.regress(model, record.regress_log.request, regression_pb2.RegressionResult(), None)
    elif kind == "multi_inference_log":
        request = record.multi_inference_log.request
        tf_examples.multi_inference(model, request, inference_pb2.MultiInferenceResponse(), None)
    else:
        raise CallError(grpc.StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
