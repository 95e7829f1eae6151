"""Warm-up files, TLS and what else belongs to a start: sections 1 and 6 of the facts."""

import subprocess
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2, prediction_service_pb2_grpc

from serving.model_server.loading.warmup import WARMUP_FILE, warm_up
from serving.model_server.metrics import Metrics
from serving.runtimes.status import CallError
from serving.runtimes.tensorflow_session import TensorFlowRuntime
from serving.runtimes.tensors import to_proto
from tests.model_server import saved_models
from tests.model_server.server_process import free_port, launch

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def model(models_dir: Path) -> TensorFlowRuntime:
    return TensorFlowRuntime(models_dir / "half_plus_two" / "00000123")


def predict_log(x: Any, signature: str = "") -> bytes:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.signature_name = signature
    to_proto(np.array(x), log.predict_log.request.inputs["x"])
    data: bytes = log.SerializeToString()
    return data


def classify_log() -> bytes:
    log = prediction_log_pb2.PredictionLog()
    for kind, part in (("classify", log.classify_log), ("regress", log.regress_log)):
        part.request.model_spec.signature_name = f"{kind}_x_to_y"
        example = part.request.input.example_list.examples.add()
        example.features.feature["x"].float_list.value.append(1)
    log.ClearField("classify_log")
    data: bytes = log.SerializeToString()
    return data


def write(directory: Path, *records: bytes) -> Path:
    path = directory / WARMUP_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return directory


def test_recorded_requests_are_replayed(model: TensorFlowRuntime, tmp_path: Path) -> None:
    metrics = Metrics()
    records = [predict_log(np.float32(1)), classify_log()]
    assert warm_up(model, write(tmp_path, *records), metrics) == 2
    assert f':tensorflow:serving:model_warmup_records_read{{model_path="{tmp_path}"}} 2' in metrics.prometheus()


def test_no_file_is_no_warm_up(model: TensorFlowRuntime, tmp_path: Path) -> None:
    assert warm_up(model, tmp_path, Metrics()) == 0


def test_a_request_that_fails_fails_the_load(model: TensorFlowRuntime, tmp_path: Path) -> None:
    with pytest.raises(CallError, match="Expects arg"):
        warm_up(model, write(tmp_path, predict_log(np.float64(1))), Metrics())


def test_other_files_are_refused(model: TensorFlowRuntime, tmp_path: Path) -> None:
    directory = write(tmp_path)
    (directory / WARMUP_FILE).write_bytes(b"this is no TFRecord file at all")
    with pytest.raises(CallError, match="verify your warmup data is in TFRecord format") as caught:
        warm_up(model, directory, Metrics())
    assert caught.value.code is grpc.StatusCode.DATA_LOSS


def test_a_record_of_something_else_is_refused(model: TensorFlowRuntime, tmp_path: Path) -> None:
    with pytest.raises(CallError, match="Failed to parse warmup record") as caught:
        warm_up(model, write(tmp_path, b"\xff\xff"), Metrics())
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_too_many_records_are_refused(model: TensorFlowRuntime, tmp_path: Path) -> None:
    directory = write(tmp_path, *[predict_log(np.float32(1))] * 1001)
    with pytest.raises(CallError, match="Number of warmup records exceeds the maximum"):
        warm_up(model, directory, Metrics())


def test_another_kind_of_record_is_unimplemented(model: TensorFlowRuntime, tmp_path: Path) -> None:
    log = prediction_log_pb2.PredictionLog()
    log.session_run_log.SetInParent()
    with pytest.raises(CallError) as caught:
        warm_up(model, write(tmp_path, log.SerializeToString()), Metrics())
    assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED


def test_defaults_of_a_signature_make_inputs_optional(tmp_path: Path) -> None:
    from serving.model_server.calls.predict import predict

    class Adder(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="a")])
        def add(self, a: Any, b: Any = 2.0) -> Any:
            return {"sum": a + b}

    module = Adder()
    signature = module.add.get_concrete_function()
    tf.saved_model.save(module, str(tmp_path), signatures=signature)
    model = TensorFlowRuntime(tmp_path)
    assert "__saved_model_init_op" in model.signatures
    log = prediction_log_pb2.PredictLog()
    to_proto(np.array([1], np.float32), log.request.inputs["a"])
    predict(model, log.request, log.response.outputs, None)
    assert list(log.response.outputs["sum"].float_val) == [3.0]
    model.close()


def test_tls_is_spoken_where_a_config_file_says_so(models_dir: Path, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    try:
        subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    config = tmp_path / "ssl.txt"
    lines = ((name, path.read_text().replace("\n", "\\n")) for name, path in (("key", key), ("cert", certificate)))
    config.write_text("\n".join(f'server_{name}: "{text}"' for name, text in lines))
    port = free_port()
    base = models_dir / "half_plus_two"
    flags = ["--model_name=secret", f"--model_base_path={base}", f"--ssl_config_file={config}", f"--port={port}"]
    process = launch(tmp_path / "log", *flags)
    try:
        credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
            grpc.channel_ready_future(channel).result(60)
            log = prediction_log_pb2.PredictLog()
            log.request.model_spec.name = "secret"
            to_proto(np.array([2], np.float32), log.request.inputs["x"])
            response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(log.request, timeout=20)
        assert list(response.outputs["y"].float_val) == [3.0]
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_a_version_is_warm_before_it_is_available(tmp_path: Path) -> None:
    directory = saved_models.write(tmp_path / "1", saved_models.half_plus(1))
    write(directory, predict_log(np.float64(1)))
    from serving.model_server.loading.servable import LoadSettings, loader

    with pytest.raises(CallError):
        loader(LoadSettings(), Metrics())("m", 1, directory)
    servable = loader(LoadSettings(warm_up=False), Metrics())("m", 1, directory)
    assert servable.run({"x:0": np.zeros(1, np.float32)}, ["y:0"])[0].tolist() == [1.0]
    servable.close()
