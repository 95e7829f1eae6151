"""TensorFlow Serving's files: protobuf text, read as strictly as it reads them."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from serving.model_server.versions.policies import All, Latest, ModelConfig, Policy, Specific
from serving.runtimes.messages import model_server_config_pb2
from serving.runtimes.status import invalid_argument

logger = logging.getLogger(__name__)

PLATFORM = "tensorflow"
TENSORFLOW_TYPE = 1  # ModelServerConfig.ModelType.TENSORFLOW, deprecated but read


def read_text_file(path: Path, kind: Any) -> Any:
    """Read a message of that class from a text file. Raises CallError in TensorFlow Serving's words."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise invalid_argument(f"Invalid protobuf file: '{path}': {exc}") from exc
    try:
        return text_format.Parse(text, kind())
    except text_format.ParseError as exc:
        logger.error("Error parsing text-format %s: %s", kind.DESCRIPTOR.full_name, exc)
        raise invalid_argument(f"Invalid protobuf file: '{path}'") from exc


def read_model_config_file(path: Path) -> list[ModelConfig]:
    """Read the models of a --model_config_file. Raises CallError."""
    config = read_text_file(path, model_server_config_pb2.ModelServerConfig)
    if config.WhichOneof("config") != "model_config_list":
        raise invalid_argument("Invalid ModelServerConfig: only model_config_list is supported")
    return model_configs(config.model_config_list)


def model_configs(config_list: Any) -> list[ModelConfig]:
    """Convert a ModelConfigList. Raises CallError for a model that is listed twice or cannot be served."""
    configs: dict[str, ModelConfig] = {}
    for config in config_list.config:
        if config.name in configs:
            raise invalid_argument(f"Illegal to list model {config.name} multiple times in config list")
        configs[config.name] = _model_config(config)
    return list(configs.values())


def _model_config(config: Any) -> ModelConfig:
    if not config.base_path.startswith("/"):
        raise invalid_argument(
            f"Expected model {config.name} to have an absolute path or URI; got base_path()={config.base_path}"
        )
    if config.model_type == 0 and not config.model_platform:
        raise invalid_argument(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform, "
            f"model name is {config.name}"
        )
    if config.model_type != 0 and config.model_platform:
        raise invalid_argument(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform."
        )
    if config.model_platform not in ("", PLATFORM) or config.model_type not in (0, TENSORFLOW_TYPE):
        platform = config.model_platform or f"type {config.model_type}"
        raise invalid_argument(f"Model {config.name} requests unsupported platform {platform}")
    return ModelConfig(
        config.name, Path(config.base_path), _policy(config.model_version_policy), dict(config.version_labels)
    )


def _policy(policy: Any) -> Policy:
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return All()
    if choice == "specific":
        return Specific(frozenset(policy.specific.versions))
    return Latest(max(1, policy.latest.num_versions)) if choice == "latest" else Latest()


def parse_channel_arguments(text: str) -> Sequence[tuple[str, int | str]]:
    """Parse `k=v,k=v`: a value is a number where it can be, as TensorFlow Serving reads --grpc_channel_arguments."""
    pairs = (item.partition("=") for item in text.split(",") if item)
    return tuple((key, int(value) if value.lstrip("-").isdigit() else value) for key, _, value in pairs)
