"""TensorFlow's messages without TensorFlow, its record files without it, and TensorFlow afterwards."""

import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from serving.model_server.loading.tfrecord import DamagedRecord, read_records

pytestmark = pytest.mark.integration

SCRIPT = """
import sys
from serving.runtimes import messages
import serving.model_server.service, serving.model_server.protocols.grpc_services, serving.model_server.server
import serving.model_server.loading.servable, serving.model_server.loading.warmup, serving.runtimes.litert
assert "tensorflow" not in sys.modules
request = messages.predict_pb2.PredictRequest.FromString(b"\\n\\x03\\n\\x01m")
from serving.runtimes.tensorflow_start import start_tensorflow
tf = start_tensorflow(keras=False)
from tensorflow_serving.apis import predict_pb2
assert predict_pb2.PredictRequest is messages.predict_pb2.PredictRequest
request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.5]))
print(request.model_spec.name, float(tf.constant(1.0) + tf.make_ndarray(request.inputs["x"])[0]))
"""


def test_messages_come_without_tensorflow_and_stay_the_same_with_it() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["m", "2.5"], done.stderr


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "records"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in (b"", b"one", bytes(100_000)):
            writer.write(record)
    return path


def test_records_are_those_that_tensorflow_wrote(records: Path) -> None:
    assert list(read_records(records)) == [b"", b"one", bytes(100_000)]


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    (tmp_path / "records").write_bytes(b"")
    assert list(read_records(tmp_path / "records")) == []


@pytest.mark.parametrize("at", [0, 9, 16, 28, 29, 40, -1])
def test_a_changed_byte_is_found_wherever_it_is(records: Path, at: int) -> None:
    data = bytearray(records.read_bytes())
    data[at] ^= 1
    records.write_bytes(data)
    with pytest.raises(DamagedRecord, match="corrupted record"):
        list(read_records(records))
    with pytest.raises(tf.errors.DataLossError):  # and TensorFlow finds it, too
        list(tf.data.TFRecordDataset(str(records)))


@pytest.mark.parametrize("cut", [1, 4, 5, 99_000, 100_004, 100_015])
def test_a_file_that_is_cut_short_is_found(records: Path, cut: int) -> None:
    records.write_bytes(records.read_bytes()[:-cut])
    with pytest.raises(DamagedRecord, match="truncated record at 35"):
        list(read_records(records))
