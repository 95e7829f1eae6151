"""`python -m serving.model_server`: TensorFlow Serving's protocol on a machine that does not have its binary."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click

from serving.contract.errors import UsageError
from serving.contract.logs import configure
from serving.contract.machine import usable_cpus

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

NVIDIA_DEVICES = ("/dev/nvidia0", "/dev/dxg")  # Linux, and Linux under Windows
FAILED_TO_START = 255  # exit(-1), as the stock binary ends


class ServerCommand(click.Command):
    """A command that answers an unknown flag with the known ones."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as exc:
            known = " ".join(sorted(name for parameter in self.params for name in parameter.opts))
            raise click.UsageError(f"no such flag: {exc.option_name}. The flags are: {known}", ctx) from exc


def switch(name: str, default: bool, text: str) -> Decorator:
    """Define a flag that is given alone or as `--name=true`, `--name=false`."""
    return click.option(f"--{name}", type=bool, is_flag=False, flag_value=True, default=default, help=text)


def file(name: str, text: str) -> Decorator:
    return click.option(f"--{name}", type=click.Path(path_type=Path), help=text, metavar="FILE")


@click.command(cls=ServerCommand, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--models", type=click.Path(path_type=Path), help="Folder whose every subfolder is a model.")
@click.option("--model_name", default="default", help="Name of the one model.")
@click.option("--model_base_path", type=click.Path(path_type=Path), help="Folder of the one model's versions.")
@file("model_config_file", "Text ModelServerConfig: several models, their policies and labels.")
@click.option("--model_config_file_poll_wait_seconds", type=float, default=0, help="How often it is read; 0: once.")
@click.option("--file_system_poll_wait_seconds", type=float, default=1, help="How often folders are read; 0: once.")
@click.option("--host", default="127.0.0.1", help="Address to listen on; the stock server's is 0.0.0.0.")
@click.option("--port", default=8500, help="gRPC port; 0 is off.")
@click.option("--grpc_socket_path", default="", help="Unix socket to listen on for gRPC as well.")
@click.option("--predict_socket_path", default="", help="Unix socket for Predict without gRPC, for gateways beside it.")
@click.option("--grpc_channel_arguments", default="", help="key=value,key=value for the gRPC server.")
@click.option("--grpc_max_threads", default=64, help="Calls that run or wait at a time.")
@file("ssl_config_file", "Text SSLConfig; then gRPC speaks TLS.")
@switch("enable_grpc_healthcheck_service", False, "Answer grpc.health.v1.")
@click.option("--rest_api_port", default=0, help="HTTP port of the REST API; 0 is off.")
@click.option("--rest_api_timeout_in_ms", default=30000, help="How long a REST call may take.")
@file("monitoring_config_file", "Text MonitoringConfig: Prometheus on the REST port.")
@switch("enable_batching", False, "Merge requests that wait for the same model.")
@file("batching_parameters_file", "Text BatchingParameters; needs --enable_batching.")
@switch("enable_model_warmup", True, "Replay assets.extra/tf_serving_warmup_requests before a version is available.")
@click.option("--num_request_iterations_for_warmup", default=1, help="How often each recorded request is replayed.")
@click.option("--max_num_load_retries", default=5, help="Attempts after the first one to load a version.")
@click.option("--load_retry_interval_micros", default=60_000_000, help="Time between them.")
@switch("allow_version_labels_for_unavailable_models", False, "New labels may point at versions not loaded yet.")
@switch("enable_serialization_as_tensor_content", False, "Answer with tensor_content in place of typed fields.")
@click.option(
    "--tensorflow_intra_op_parallelism",
    type=click.IntRange(0),
    default=0,
    help="Threads of one operation; 0: half the CPUs, for batches run side by side.",
)
@click.option(
    "--prefer_tflite_model",
    type=bool,
    is_flag=False,
    flag_value=True,
    help="Answer from a version's model.tflite where its golden examples agree; default: true without an NVIDIA GPU.",
)
@click.option(
    "--max_repeated_tensor_bytes",
    type=click.IntRange(0),
    default=4 * 2**20,
    help="Most bytes of an input that the request gives as a shape and a repeated value; 128 rows of the model's input "
    "are always allowed. 0: no limit, as in TensorFlow Serving.",
)
@click.option("--log_format", type=click.Choice(["json", "text"]), default="text", help="Form of the log's lines.")
@click.option("--saved_model_tags", default="serve", help="Tags of the graph to load, separated by commas.")
def model_server(**flags: Any) -> None:
    """Serve SavedModels over TensorFlow Serving's gRPC and REST APIs.

    \b
    python -m serving.model_server --models models
    python -m serving.model_server --model_name=half --model_base_path=/srv/half --rest_api_port=8501
    """
    _check(flags)
    sys.stderr = _own_stderr()
    configure(flags["log_format"], "INFO")
    from serving.runtimes.status import CallError

    try:
        _serve(flags)
    except CallError as exc:
        _fail(str(exc))


def _check(flags: dict[str, Any]) -> None:
    """Refuse flags that do not go together. Raises UsageError."""
    sources = [name for name in ("models", "model_base_path", "model_config_file") if flags[name] is not None]
    if len(sources) != 1:
        given = ", ".join(f"--{name}" for name in sources) or "none"
        raise UsageError(
            f"one of --models, --model_base_path and --model_config_file is needed; given: {given}",
            hint="To try it: python -m serving.model_server --models models",
        )
    if flags["batching_parameters_file"] is not None and not flags["enable_batching"]:
        raise UsageError(
            "--batching_parameters_file was given without --enable_batching", hint="Add --enable_batching."
        )
    if not (flags["port"] or flags["grpc_socket_path"] or flags["rest_api_port"]):
        raise UsageError("every port is off", hint="Give --port, --grpc_socket_path or --rest_api_port.")


def _serve(flags: dict[str, Any]) -> None:
    from serving.model_server.loading.servable import LoadSettings, loader
    from serving.model_server.metrics import Metrics
    from serving.model_server.server import ServerSettings, serve
    from serving.model_server.service import ModelServerService
    from serving.model_server.versions import config_files
    from serving.model_server.versions.policies import ModelConfig
    from serving.model_server.versions.repository import Repository, RepositorySettings

    metrics = Metrics()
    configs: list[ModelConfig] = []
    if flags["model_config_file"] is not None:
        configs = config_files.read_model_config_file(flags["model_config_file"])
    elif flags["model_base_path"] is not None:
        configs = [ModelConfig(flags["model_name"], flags["model_base_path"].absolute())]
    loading = LoadSettings(
        _batching(flags),
        flags["enable_model_warmup"],
        flags["num_request_iterations_for_warmup"],
        tuple(flags["saved_model_tags"].split(",")),
        flags["tensorflow_intra_op_parallelism"] or max(1, usable_cpus() // 2),
        not _has_gpu() if flags["prefer_tflite_model"] is None else flags["prefer_tflite_model"],
    )
    settings = RepositorySettings(
        poll_seconds=flags["file_system_poll_wait_seconds"],
        load_retries=flags["max_num_load_retries"],
        retry_seconds=flags["load_retry_interval_micros"] / 1e6,
        unavailable_labels=flags["allow_version_labels_for_unavailable_models"],
        fall_back=flags["models"] is not None,
    )
    repository = Repository(loader(loading, metrics), settings, models_dir=flags["models"], configs=configs)
    service = ModelServerService(
        repository,
        metrics,
        tensor_content=flags["enable_serialization_as_tensor_content"],
        max_repeated_bytes=flags["max_repeated_tensor_bytes"],
    )
    ports = ServerSettings(
        host=flags["host"],
        port=flags["port"],
        socket_path=flags["grpc_socket_path"],
        predict_socket_path=flags["predict_socket_path"],
        threads=flags["grpc_max_threads"],
        channel_arguments=tuple(config_files.parse_channel_arguments(flags["grpc_channel_arguments"])),
        ssl_config_file=flags["ssl_config_file"],
        health=flags["enable_grpc_healthcheck_service"],
        rest_port=flags["rest_api_port"],
        rest_timeout_seconds=flags["rest_api_timeout_in_ms"] / 1000,
        metrics_path=_metrics_path(flags["monitoring_config_file"]),
        wait_for=tuple(model.name for model in configs),
        config_file=flags["model_config_file"],
        config_poll_seconds=flags["model_config_file_poll_wait_seconds"],
    )
    serve(repository, service, ports)


def _batching(flags: dict[str, Any]) -> Any:
    """Return the batch settings, None without --enable_batching; without a file they refuse nothing."""
    from serving.model_server.loading.batching import OWN_DEFAULTS, BatchSettings, read_batch_settings

    if not flags["enable_batching"]:
        return None
    if flags["batching_parameters_file"] is not None:
        return read_batch_settings(flags["batching_parameters_file"])
    return OWN_DEFAULTS if flags["models"] is not None else BatchSettings()


def _metrics_path(monitoring_config_file: Path | None) -> str:
    from serving.model_server.metrics import DEFAULT_PATH
    from serving.model_server.versions.config_files import read_text_file
    from serving.model_server.versions.protos import MonitoringConfig

    if monitoring_config_file is None:
        return ""
    prometheus = read_text_file(monitoring_config_file, MonitoringConfig).prometheus_config
    return (prometheus.path or DEFAULT_PATH) if prometheus.enable else ""


def _own_stderr() -> TextIO:
    """Open a stderr for Python alone: while TensorFlow is imported, file descriptor 2 is held back."""
    return os.fdopen(os.dup(2), "w", buffering=1)


def _has_gpu() -> bool:
    return any(Path(device).exists() for device in NVIDIA_DEVICES)


def _fail(message: str) -> NoReturn:
    click.echo(f"Failed to start server. Error: {message}")
    sys.exit(FAILED_TO_START)


if __name__ == "__main__":
    from sightline.cli import run

    run(model_server, "python -m serving.model_server")
