"""The real command in its own process, and a client of the official API for it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.runtimes.tensors import to_proto

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class ModelServer:
    """A running server: its process, ports and the official stubs."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int
    rest_port: int
    channel: grpc.Channel

    def __post_init__(self) -> None:
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def predict(
        self, model: str, inputs: dict[str, Any], *, timeout: float = 20, signature: str = "", **spec: Any
    ) -> predict_pb2.PredictResponse:
        """Predict. inputs: arrays, or ready TensorProtos. spec: version=, version_label=."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name = model
        request.model_spec.signature_name = signature
        if "version" in spec:
            request.model_spec.version.value = spec["version"]
        if "version_label" in spec:
            request.model_spec.version_label = spec["version_label"]
        request.output_filter.extend(spec.get("output_filter", ()))
        for alias, value in inputs.items():
            if isinstance(value, np.ndarray):
                to_proto(value, request.inputs[alias])
            else:
                request.inputs[alias].CopyFrom(value)
        return self.prediction.Predict(request, timeout=timeout)

    def states(self, model: str) -> dict[int, str]:
        """version: state's name; empty when the model was never seen."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        try:
            response = self.models.GetModelStatus(request, timeout=20)
        except grpc.RpcError as exc:
            if exc.code() != grpc.StatusCode.NOT_FOUND:
                raise
            return {}
        state = get_model_status_pb2.ModelVersionStatus.State
        return {row.version: state.Name(row.state) for row in response.model_version_status}

    def errors(self, model: str) -> dict[int, str]:
        """version: the error of its last load, "" where it has none."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        rows = self.models.GetModelStatus(request, timeout=20).model_version_status
        return {row.version: row.status.error_message for row in rows}

    def wait_until(self, holds: Callable[[], bool], seconds: float = 40) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)

    def wait_for(self, model: str, version: int, state: str = "AVAILABLE", seconds: float = 40) -> None:
        end = time.monotonic() + seconds
        while self.states(model).get(version) != state:
            assert time.monotonic() < end, f"{model} {version}: {self.states(model)}\n{self.log.read_text()}"
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def metadata(self, model: str, *fields: str) -> get_model_metadata_pb2.GetModelMetadataResponse:
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
        request.model_spec.name = model
        return self.prediction.GetModelMetadata(request, timeout=20)

    def stop(self, seconds: float = 15) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def launch(log: Path, *arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start the real command."""
    command = [sys.executable, "-m", "serving.model_server", *map(str, arguments)]
    with log.open("wb") as out:
        return subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env={**os.environ, **(env or {})})


@contextlib.contextmanager
def running(folder: Path, *arguments: str | Path, rest: bool = False) -> Iterator[ModelServer]:
    """A server on free ports, ready to be called; stopped at the end."""
    port, rest_port = free_port(), free_port() if rest else 0
    log = folder / f"server-{port}.log"
    more = ["--rest_api_port", str(rest_port)] if rest else []
    process = launch(log, "--port", str(port), *more, *arguments)
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=options)
    try:
        try:
            grpc.channel_ready_future(channel).result(START_SECONDS)
        except grpc.FutureTimeoutError:
            pytest.fail(f"the server did not start:\n{log.read_text()}")
        yield ModelServer(process, log, port, rest_port, channel)
    finally:
        channel.close()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
