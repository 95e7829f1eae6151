"""Predict over a Unix socket: the real server, and the gateway's side of it."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from serving.backend.methods import PREDICT
from serving.backend.predict_socket import CODE, SECONDS, PredictSocket, SocketBackends
from serving.backend.protos import wire_pb2 as wire
from serving.local_calls.client import LocalClient, NotReached
from serving.runtimes.status import CallError
from serving.runtimes.tensors import to_content_proto, to_numpy
from tests.model_server.server_process import ModelServer, free_port, launch, running
from tests.waiting import cpu_ticks, until

pytestmark = pytest.mark.integration

At = Callable[[Path], PredictSocket]
FLOATS = np.array([[1.0], [2.0], [5.0]], np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("socket") / "predict"


@pytest.fixture(scope="module")
def beside(models_dir: Path, path: Path) -> Iterator[ModelServer]:
    """A server that listens for gRPC, HTTP and on the socket."""
    metrics = path.parent / "monitoring"
    metrics.write_text('prometheus_config { enable: true, path: "/metrics" }')
    arguments = ("--models", models_dir, "--predict_socket_path", path, "--monitoring_config_file", metrics)
    with running(path.parent, *arguments, rest=True) as ready:
        for model, version in (("half_plus_two", 123), ("dense", 1), ("slow", 1)):
            ready.wait_for(model, version)
        yield ready


@pytest.fixture
def at() -> Iterator[At]:
    """A gateway's side of the socket at a path."""
    made: list[PredictSocket] = []

    def open_at(path: Path) -> PredictSocket:
        made.append(PredictSocket(str(path)))
        return made[-1]

    yield open_at
    for each in made:
        each.close()


def request_of(model: str, inputs: dict[str, Any], signature: str = "", **more: Any) -> wire.PredictRequest:
    spec = wire.ModelSpec(name=model, signature_name=signature)
    if "version" in more:
        spec.version.value = more["version"]
    request = wire.PredictRequest(model_spec=spec)
    for name, value in inputs.items():
        to_content_proto(value, request.inputs[name])
    return request


def only(model: str, models_dir: Path) -> tuple[str | Path, ...]:
    """Arguments of a server of one model, whose port opens when it answers."""
    return ("--model_name", model, "--model_base_path", models_dir / model)


def ask(where: PredictSocket, request: wire.PredictRequest, timeout: float = 20.0) -> Any:
    return where.predict(request, timeout)


def test_the_answer_is_the_one_that_grpc_gives(beside: ModelServer, path: Path, at: At) -> None:
    over_grpc = beside.predict("half_plus_two", {"x": FLOATS})
    answer = ask(at(path), request_of("half_plus_two", {"x": FLOATS}))
    assert answer.SerializeToString(deterministic=True) == over_grpc.SerializeToString(deterministic=True)
    assert to_numpy(answer.outputs["y"]).tolist() == [[2.5], [3.0], [4.5]]


@pytest.mark.parametrize(
    ("model", "more"),
    [("", {}), ("nope", {}), ("dense", {"version": 7}), ("dense", {"signature": "foo"}), ("half_plus_two", {})],
)
def test_a_refusal_is_the_one_that_grpc_gives(
    beside: ModelServer, path: Path, at: At, *, model: str, more: dict[str, Any]
) -> None:
    with pytest.raises(grpc.RpcError) as over_grpc:
        beside.predict(model, {"wrong": FLOATS}, **more)
    with pytest.raises(CallError) as answer:
        ask(at(path), request_of(model, {"wrong": FLOATS}, **more))
    assert answer.value.code is over_grpc.value.code()
    assert answer.value.message == over_grpc.value.details()


@pytest.mark.usefixtures("beside")
def test_what_holds_no_request_is_refused(path: Path) -> None:
    client = LocalClient(str(path))
    answer = client.ask(SECONDS.pack(20.0) + b"no message", 20)
    client.close()
    assert CODE.unpack_from(answer) == (grpc.StatusCode.INVALID_ARGUMENT.value[0],)
    assert answer[CODE.size :] == b"the frame holds no PredictRequest"


@pytest.mark.usefixtures("beside")
def test_a_large_batch_travels_whole(path: Path, at: At) -> None:
    batch = np.arange(3_000_000, dtype=np.float32).reshape(-1, 1)
    answer = ask(at(path), request_of("half_plus_two", {"x": batch}))
    assert np.array_equal(to_numpy(answer.outputs["y"]), batch / 2 + 2)


@pytest.mark.usefixtures("beside")
def test_a_deadline_that_passes_is_told_and_the_next_call_is_answered(path: Path, at: At) -> None:
    where = at(path)
    with pytest.raises(CallError) as late:
        ask(where, request_of("slow", {"n": np.array(20_000_000, np.int32)}), timeout=0.3)
    assert late.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert to_numpy(ask(where, request_of("half_plus_two", {"x": FLOATS})).outputs["y"])[0] == 2.5


def test_calls_are_counted_by_where_they_came_in(beside: ModelServer, path: Path, at: At) -> None:
    ask(at(path), request_of("half_plus_two", {"x": FLOATS}))
    text = httpx.get(f"http://127.0.0.1:{beside.rest_port}/metrics", trust_env=False).text
    assert 'model_name="half_plus_two",API="Predict",entrypoint="SOCKET"' in text


def test_a_server_that_is_told_to_stop_answers_what_runs(models_dir: Path, tmp_path: Path, at: At) -> None:
    path = tmp_path / "s"
    with running(tmp_path, *only("slow", models_dir), "--predict_socket_path", path) as server:
        where = at(path)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask, where, request_of("slow", {"n": np.array(2_000_000, np.int32)}), timeout=60)
            before = cpu_ticks(server.process.pid)
            until(lambda: cpu_ticks(server.process.pid) > before + 10)  # it computes
            assert not answer.done()
            server.process.send_signal(signal.SIGTERM)
            assert to_numpy(answer.result(60).outputs["counted"]) == 2_000_000
        assert server.process.wait(15) == 0
        assert not path.exists()
        with pytest.raises(NotReached):
            ask(where, request_of("slow", {}))


def test_a_server_that_was_killed_leaves_its_socket_to_the_next(models_dir: Path, tmp_path: Path, at: At) -> None:
    path = tmp_path / "s"
    where, request = at(path), request_of("half_plus_two", {"x": FLOATS})
    arguments = (*only("half_plus_two", models_dir), "--predict_socket_path", path)
    with running(tmp_path, *arguments) as server:
        ask(where, request)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(15)
        with pytest.raises(NotReached):
            ask(where, request)
    assert path.exists()
    with running(tmp_path, *arguments):
        assert ask(where, request).model_spec.version.value == 123


def test_two_servers_do_not_share_a_socket(models_dir: Path, beside: ModelServer, path: Path, tmp_path: Path) -> None:
    assert beside.process.poll() is None
    second = launch(tmp_path / "log", "--models", models_dir, "--port", str(free_port()), "--predict_socket_path", path)
    assert second.wait(60) != 0
    said = (tmp_path / "log").read_text()
    assert f"Another model server listens at {path}" in said
    assert "Traceback" not in said


def test_a_call_goes_over_grpc_where_the_socket_reaches_nobody(
    beside: ModelServer, path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    link = tmp_path / "link"
    backends = SocketBackends([f"127.0.0.1:{beside.port}"], str(link))
    request = request_of("half_plus_two", {"x": FLOATS})
    try:
        for _ in range(3):
            answer = backends.call(PREDICT, request, timeout=20)
            assert answer.model_spec.version.value == 123
        assert caplog.text.count("Predict goes over gRPC") == 1
        link.symlink_to(path)
        backends.call(PREDICT, request, timeout=20)
        assert caplog.text.count("again") == 1
    finally:
        backends.close()


def test_a_connection_that_breaks_in_the_midst_is_unavailable(tmp_path: Path, at: At) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def end_in_the_midst() -> None:
            connection, _ = listener.accept()
            connection.recv(100)
            connection.close()

        thread = threading.Thread(target=end_in_the_midst)
        thread.start()
        with pytest.raises(CallError) as broken:
            ask(at(path), request_of("x", {}))
        thread.join()
    assert broken.value.code is grpc.StatusCode.UNAVAILABLE
    assert str(path) in broken.value.message
