"""Versions come, go, break and return while the server runs."""

import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import model_management_pb2

from serving.runtimes.status import CallError
from serving.runtimes.tensorflow_session import TensorFlowRuntime
from tests.model_server import saved_models
from tests.model_server.server_process import ModelServer, free_port, launch, running

pytestmark = pytest.mark.integration

X = np.array([[1.0]], np.float32)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("changing")


@pytest.fixture(scope="module")
def changing(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """A server whose models the tests change; each uses a name of its own."""
    with running(tmp_path_factory.mktemp("log"), "--models", root) as server:
        yield server


def publish(root: Path, model: str, version: int, addend: float) -> Path:
    """Write aside and rename, as one should."""
    aside = saved_models.write(root / model / f".tmp-{version}", saved_models.half_plus(addend))
    return aside.rename(root / model / str(version))


def answer(server: ModelServer, model: str) -> tuple[int, float]:
    response = server.predict(model, {"x": X})
    return response.model_spec.version.value, response.outputs["y"].float_val[0]


def test_a_new_model_and_a_new_version_are_found_while_running(changing: ModelServer, root: Path) -> None:
    publish(root, "swap", 1, 1)
    changing.wait_for("swap", 1)
    assert answer(changing, "swap") == (1, 1.5)
    publish(root, "swap", 2, 2)
    changing.wait_for("swap", 2)
    assert answer(changing, "swap") == (2, 2.5)
    changing.wait_for("swap", 1, "END")
    assert list(changing.states("swap").items()) == [(2, "AVAILABLE"), (1, "END")]


def test_deleting_the_newest_version_rolls_back(changing: ModelServer, root: Path) -> None:
    publish(root, "back", 1, 1)
    publish(root, "back", 2, 2)
    changing.wait_for("back", 2)
    shutil.rmtree(root / "back" / "2")
    changing.wait_for("back", 2, "END")
    assert answer(changing, "back") == (1, 1.5)


def test_a_broken_new_version_leaves_the_old_one_alone(changing: ModelServer, root: Path) -> None:
    publish(root, "broken", 1, 1)
    changing.wait_for("broken", 1)
    whole = saved_models.write(root / "broken" / ".aside", saved_models.half_plus(2))
    target = root / "broken" / "2"
    target.mkdir()
    shutil.copy(whole / "saved_model.pb", target)
    changing.wait_for("broken", 2, "LOADING")
    assert answer(changing, "broken") == (1, 1.5)
    shutil.copytree(whole / "variables", target / "variables")  # the copy goes on: no 60 s to wait for
    changing.wait_for("broken", 2)
    assert answer(changing, "broken") == (2, 2.5)


def test_an_old_version_serves_where_the_newest_is_broken_from_the_start(changing: ModelServer, root: Path) -> None:
    aside = root / ".aside"
    saved_models.write(aside / "1", saved_models.half_plus(1))
    (aside / "2").mkdir()
    aside.rename(root / "fallback")
    changing.wait_for("fallback", 1)
    assert answer(changing, "fallback") == (1, 1.5)


def test_an_emptied_folder_unloads_the_model(
    changing: ModelServer, root: Path, refused: Callable[..., tuple[str, str]]
) -> None:
    publish(root, "emptied", 1, 1)
    changing.wait_for("emptied", 1)
    (root / "emptied" / "1").rename(root / "emptied" / "gone")
    changing.wait_for("emptied", 1, "END")
    expected = ("NOT_FOUND", "Servable not found for request: Latest(emptied)")
    assert refused(changing.predict, "emptied", {"x": X}) == expected


def test_a_taken_port_is_said_and_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        process = launch(tmp_path / "log", "--models", tmp_path, "--port", str(port))
        assert process.wait(60) == 2
    assert f"cannot listen on 127.0.0.1:{port}" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_with_status_0(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path, "--models", tmp_path) as server:
        server.process.send_signal(number)
        assert server.process.wait(10) == 0
        assert "listening for gRPC on 127.0.0.1" in server.log.read_text()
    assert free_port()


def test_swaps_broken_and_half_copied_versions_cost_no_request(changing: ModelServer, root: Path) -> None:
    publish(root, "busy", 1, 1)
    changing.wait_for("busy", 1)
    stop, failures, versions = threading.Event(), [], set()

    def ask() -> None:
        while not stop.is_set():
            try:
                version, value = answer(changing, "busy")
            except grpc.RpcError as exc:
                failures.append(exc)
                continue
            versions.add(version)
            assert value == version + 0.5

    with ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(ask) for _ in range(3)]
        try:
            for version in (2, 3):
                publish(root, "busy", version, version)
                changing.wait_for("busy", version)
                shutil.rmtree(root / "busy" / str(version - 1))
            (root / "busy" / "4").mkdir()
            changing.wait_for("busy", 4, "LOADING")
            half = saved_models.write(root / "busy" / ".half", saved_models.half_plus(5)).rename(root / "busy" / ".5")
            data = next((half / "variables").glob("*.data*"))
            whole = data.read_bytes()
            data.write_bytes(whole[: len(whole) // 2])
            half.rename(root / "busy" / "5")
            changing.wait_for("busy", 5, "LOADING")
            (root / "busy" / "5" / "variables" / data.name).write_bytes(whole)
            changing.wait_for("busy", 5)
        finally:
            stop.set()
        for client in clients:
            client.result(20)
    assert failures == []
    assert versions >= {1, 3, 5}


@pytest.mark.slow
def test_memory_of_unloaded_versions_is_given_back(tmp_path: Path) -> None:
    """50 swaps of a 14 MB model: less than 10 % growth."""
    models = tmp_path / "models"
    source = saved_models.write(tmp_path / "source", saved_models.heavy)
    with running(tmp_path, "--models", models, "--file_system_poll_wait_seconds=0.1") as server:
        resident = []
        for version in range(1, 53):
            aside = shutil.copytree(source, models / "m" / f".tmp-{version}")
            aside.rename(models / "m" / str(version))
            server.wait_for("m", version)
            server.predict("m", {"x": X})
            if version > 1:
                server.wait_for("m", version - 1, "END")
                shutil.rmtree(models / "m" / str(version - 1))
            pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
            resident.append(int(pages))
    assert resident[-1] < 1.1 * resident[1]


def test_variables_that_were_not_restored_are_refused(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    tf.saved_model.save(model, str(tmp_path / "saved"))
    with pytest.raises(CallError, match="were not restored"):
        TensorFlowRuntime(tmp_path / "saved")
    model.export(str(tmp_path / "exported"), verbose=False)
    TensorFlowRuntime(tmp_path / "exported").close()


def test_a_reload_does_not_replace_a_folder(changing: ModelServer, root: Path) -> None:
    publish(root, "kept", 1, 1)
    changing.wait_for("kept", 1)
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(name="other", base_path=str(root / "kept"), model_platform="tensorflow")
    with pytest.raises(grpc.RpcError) as caught:
        changing.models.HandleReloadConfigRequest(request, timeout=20)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert answer(changing, "kept") == (1, 1.5)
