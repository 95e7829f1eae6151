"""TensorFlow Serving's files: what is written, what is kept, and that a server takes them."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from google.protobuf import text_format

from export.__main__ import export as export_command
from export.artifact.publishing import draft_version
from export.artifact.serving_config import BATCHING, GATEWAY, MODEL_CONFIG, MONITORING, refresh
from serving.contract.errors import UsageError

config_pb2 = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")


def publish(models: Path, name: str) -> None:
    with draft_version(models, name) as draft:
        (draft.path / "saved_model.pb").write_bytes(b"")
        draft.publish()


def read(path: Path) -> Any:
    return text_format.Parse(path.read_text(), config_pb2.ModelServerConfig()).model_config_list.config


def test_each_publication_lists_its_model(tmp_path: Path) -> None:
    publish(tmp_path, "digits")
    publish(tmp_path, "fashion")
    publish(tmp_path, "digits")
    folder = tmp_path / "serving-config"
    assert [(model.name, model.base_path, model.model_platform) for model in read(folder / MODEL_CONFIG)] == [
        ("digits", "/models/digits", "tensorflow"),
        ("fashion", "/models/fashion", "tensorflow"),
    ]
    assert (folder / GATEWAY).read_text().splitlines()[-1] == "SIGHTLINE_MODEL_NAMES=digits,fashion"
    assert {path.name for path in folder.iterdir()} == {MODEL_CONFIG, GATEWAY, BATCHING, MONITORING}
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in folder.iterdir())


def test_policies_labels_and_the_base_are_kept_and_models_that_are_gone_leave(tmp_path: Path) -> None:
    for name in ("digits", "gone"):
        (tmp_path / name / "1").mkdir(parents=True)
    path = refresh(tmp_path, "/srv/models") / MODEL_CONFIG
    config = text_format.Parse(path.read_text(), config_pb2.ModelServerConfig())
    digits = config.model_config_list.config[0]
    digits.model_version_policy.specific.versions.append(1)
    digits.version_labels["stable"] = 1
    path.write_text(text_format.MessageToString(config))
    (tmp_path / "gone" / "1").rmdir()
    publish(tmp_path, "new")
    assert [model.base_path for model in read(path)] == ["/srv/models/digits", "/srv/models/new"]
    assert read(path)[0] == digits
    refresh(tmp_path, "/models/")
    assert [model.base_path for model in read(path)] == ["/models/digits", "/models/new"]


def test_files_to_tune_are_written_once(tmp_path: Path) -> None:
    folder = refresh(tmp_path)
    (folder / BATCHING).write_text("max_batch_size { value: 8 }\n")
    refresh(tmp_path)
    assert (folder / BATCHING).read_text() == "max_batch_size { value: 8 }\n"


def test_a_folder_without_a_model_has_an_empty_list(tmp_path: Path) -> None:
    text = (refresh(tmp_path) / MODEL_CONFIG).read_text()
    assert text_format.Parse(text, config_pb2.ModelServerConfig()).WhichOneof("config") == "model_config_list"


def test_a_config_that_cannot_be_read_is_left_alone_and_does_not_hinder_a_publication(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = refresh(tmp_path) / MODEL_CONFIG
    path.write_text("models: [")
    with pytest.raises(UsageError, match="models\\.config cannot be read"):
        refresh(tmp_path)
    publish(tmp_path, "digits")
    assert "were not refreshed" in capsys.readouterr().err
    assert (tmp_path / "digits" / "1").is_dir()
    assert path.read_text() == "models: ["


def test_the_command_writes_them_alone(tmp_path: Path) -> None:
    (tmp_path / "digits" / "1").mkdir(parents=True)
    result = CliRunner().invoke(export_command, ["serving-config", "--models", str(tmp_path), "--base", "/srv"])
    assert result.output.strip() == str(tmp_path / "serving-config")
    assert read(tmp_path / "serving-config" / MODEL_CONFIG)[0].base_path == "/srv/digits"
    refused = CliRunner().invoke(export_command, ["serving-config", "--models", str(tmp_path), "--base", "models"])
    assert isinstance(refused.exception, UsageError)
