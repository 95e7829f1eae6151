"""Configuration files, policies, labels and reloads of a running server: sections 4 and 5 of the facts."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import model_management_pb2

from tests.model_server import saved_models
from tests.model_server.server_process import ModelServer, free_port, launch, running
from tests.waiting import until

pytestmark = pytest.mark.integration

Refused = Callable[..., tuple[str, str]]
X = np.array([[1.0]], np.float32)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """m with versions 1, 2, 3; n with version 1; empty."""
    root = tmp_path_factory.mktemp("configured")
    for version in (1, 2, 3):
        saved_models.write(root / "m" / str(version), saved_models.half_plus(version))
    saved_models.write(root / "n" / "1", saved_models.half_plus(10))
    (root / "bad" / "1").mkdir(parents=True)
    (root / "empty").mkdir()
    return root


def entry(root: Path, name: str, more: str = "", platform: str = "tensorflow", base: str | None = None) -> str:
    path = base if base is not None else str(root / name)
    return f'config {{ name: "{name}" base_path: "{path}" model_platform: "{platform}" {more} }}'


def listed(*entries: str) -> str:
    return "model_config_list { " + " ".join(entries) + " }"


@pytest.fixture(scope="module")
def configured(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp("config")
    file = folder / "models.config"
    file.write_text(listed(entry(root, "m", "model_version_policy { all {} }"), entry(root, "n")))
    arguments = ["--max_num_load_retries=0", "--load_retry_interval_micros=1000"]
    with running(folder, f"--model_config_file={file}", *arguments) as server:
        yield server


def reload(server: ModelServer, text: str, *metrics: str, timeout: float = 20) -> Any:
    request = model_management_pb2.ReloadConfigRequest(metric_names=metrics)
    text_format.Parse(text, request.config)
    return server.models.HandleReloadConfigRequest(request, timeout=timeout)


def answer(server: ModelServer, **spec: Any) -> float:
    return float(server.predict("m", {"x": X}, **spec).outputs["y"].float_val[0])


def test_the_port_is_open_only_when_all_models_answer(configured: ModelServer) -> None:
    assert configured.states("m") == {3: "AVAILABLE", 2: "AVAILABLE", 1: "AVAILABLE"}
    assert configured.states("n") == {1: "AVAILABLE"}


def test_policies_labels_and_omitted_models(configured: ModelServer, root: Path, refused: Refused) -> None:
    every = "model_version_policy { all {} }"
    labels = 'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 3 }'
    response = reload(configured, listed(entry(root, "m", every + labels)))
    assert response.status.error_code == 0
    assert answer(configured, version_label="stable") == 1.5
    assert answer(configured, version_label="canary") == 3.5
    answered = configured.predict("m", {"x": X}, version_label="canary").model_spec
    assert (answered.version.value, answered.version_label) == (3, "")
    configured.wait_for("n", 1, "END")
    assert refused(configured.predict, "n", {"x": X})[0] == "NOT_FOUND"

    specific = "model_version_policy { specific { versions: 1 versions: 2 versions: 9 } }"
    reload(configured, listed(entry(root, "m", specific), entry(root, "n")))
    configured.wait_for("m", 3, "END")
    assert configured.predict("m", {"x": X}).model_spec.version.value == 2
    assert answer(configured, version=1) == 1.5
    assert configured.predict("n", {"x": X}).outputs["y"].float_val[0] == 10.5
    assert refused(configured.predict, "m", {"x": X}, version_label="stable")[0] == "INVALID_ARGUMENT"

    reload(configured, listed(entry(root, "m", "model_version_policy { latest { num_versions: 2 } }")))
    configured.wait_for("m", 3)
    configured.wait_for("m", 1, "END")
    assert configured.states("m")[2] == "AVAILABLE"
    reload(configured, listed(entry(root, "m", every)))
    configured.wait_for("m", 1)


def test_a_label_on_an_unavailable_version_is_refused(configured: ModelServer, root: Path, refused: Refused) -> None:
    text = listed(entry(root, "m", 'version_labels { key: "canary" value: 7 }'))
    message = "Request to assign label to version 7 of model m, which is not currently available for inference"
    assert refused(reload, configured, text) == ("FAILED_PRECONDITION", message)
    assert answer(configured)


def test_wrong_configurations_are_refused_in_the_same_words(
    configured: ModelServer, root: Path, refused: Refused
) -> None:
    def message(text: str) -> str:
        code, details = refused(reload, configured, text)
        assert code == "INVALID_ARGUMENT"
        return details

    twice = listed(entry(root, "m"), entry(root, "m"))
    assert message(twice) == "Illegal to list model m multiple times in config list"
    relative = listed(entry(root, "m", base="rel"))
    assert message(relative) == "Expected model m to have an absolute path or URI; got base_path()=rel"
    assert message(listed(entry(root, "m", platform="torch"))) == "Model m requests unsupported platform torch"
    assert message(listed(entry(root, "m", platform=""))).startswith(
        "Illegal setting neither ModelServerConfig::model_type (deprecated) nor"
    )
    assert message("") == (
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported"
    )
    assert answer(configured)


def test_a_new_model_that_cannot_be_loaded_fails_the_reload(
    configured: ModelServer, root: Path, refused: Refused
) -> None:
    every = entry(root, "m", "model_version_policy { all {} }")
    code, message = refused(reload, configured, listed(every, entry(root, "bad")))
    assert code == "UNKNOWN"
    assert message.startswith("1 model(s) did not become available: {{name: bad version: 1} due to error: NOT_FOUND: ")
    assert "Could not find SavedModel .pb or .pbtxt at supplied export directory path" in message
    assert answer(configured)


def test_a_new_model_without_versions_is_waited_for(configured: ModelServer, root: Path, refused: Refused) -> None:
    every = entry(root, "m", "model_version_policy { all {} }")
    code, _ = refused(reload, configured, listed(every, entry(root, "empty")), timeout=1)
    assert code == "DEADLINE_EXCEEDED"
    assert answer(configured)


def test_metrics_of_a_reload_are_told(configured: ModelServer, root: Path) -> None:
    name = "/tensorflow/serving/request_count"
    every = entry(root, "m", "model_version_policy { all {} }")
    (metric,) = reload(configured, listed(every), name).metric
    assert (metric.name, metric.int64_value_increase) == (name, 0)


def test_a_missing_base_path_stalls_no_other_model(configured: ModelServer, root: Path) -> None:
    every = entry(root, "m", "model_version_policy { all {} }")
    with pytest.raises(grpc.RpcError):
        reload(configured, listed(every, entry(root, "gone")), timeout=1)
    saved_models.write(root / "m" / "4", saved_models.half_plus(4))
    configured.wait_for("m", 4)
    assert answer(configured) == 4.5


def test_the_file_is_read_again_and_new_labels_may_come_early(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text(listed(entry(root, "n", 'version_labels { key: "next" value: 2 }')))
    flags = ["--model_config_file_poll_wait_seconds=1", "--allow_version_labels_for_unavailable_models"]
    socket = tmp_path / "grpc.sock"
    flags += [f"--grpc_socket_path={socket}", "--enable_grpc_healthcheck_service=true"]
    with running(tmp_path, "--model_config_file", file, *flags) as server:
        file.write_text("nonsense {")
        until(lambda: "Error parsing text-format tensorflow.serving.ModelServerConfig" in server.log.read_text())
        assert server.states("n") == {1: "AVAILABLE"}
        file.write_text(listed(entry(root, "m", "model_version_policy { specific { versions: 2 } }")))
        server.wait_for("m", 2)
        server.wait_for("n", 1, "END")
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            assert check(b"", timeout=5) == b"\x08\x01"  # status: SERVING
            assert check(b"\x0a\x0cModelService", timeout=5) == b"\x08\x01"
            with pytest.raises(grpc.RpcError) as caught:
                check(b"\x0a\x01x", timeout=5)
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        assert server.stop() == 0
        assert not socket.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense {", "Failed to start server. Error: INVALID_ARGUMENT: Invalid protobuf file: '"),
        ('model_config_list { config { name: "bad" base_path: "ROOT/bad" model_platform: "tensorflow" } }', None),
        (
            'model_config_list { config { name: "n" base_path: "ROOT/n" model_platform: "tensorflow" '
            'version_labels { key: "x" value: 1 } } }',
            "Failed to start server. Error: FAILED_PRECONDITION: Request to assign label to version 1 of model n",
        ),
    ],
)
def test_a_start_that_fails_says_why_and_ends_with_255(root: Path, tmp_path: Path, text: str, said: str | None) -> None:
    file = tmp_path / "models.config"
    file.write_text(text.replace("ROOT", str(root)))
    flags = ["--max_num_load_retries=0", "--port", str(free_port())]
    process = launch(tmp_path / "log", "--model_config_file", file, *flags)
    assert process.wait(60) == 255
    bad = (
        "Failed to start server. Error: UNKNOWN: 1 servable(s) did not become available: "
        "{{name: bad version: 1} due to error: NOT_FOUND: "
    )
    assert (said or bad) in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--models", "x", "--nope=1"], "--model_config_file"),
        ([], "one of --models, --model_base_path and --model_config_file is needed"),
        (["--models", "x", "--batching_parameters_file", "y"], "without --enable_batching"),
    ],
)
def test_flags_that_cannot_be_used_are_explained(tmp_path: Path, flags: list[str], said: str) -> None:
    process = launch(tmp_path / "log", *flags)
    assert process.wait(60) == 2
    assert said in (tmp_path / "log").read_text()
