"""`python -m serving.model_server`: TensorFlow Serving's protocol on a machine that does not have its binary."""

import logging
import os
import sys
from pathlib import Path

import click

import sightline


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--models", type=click.Path(path_type=Path), help="Folder whose every subfolder is a model.")
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", default=8500, help="gRPC port; 0 is off.")
def model_server(models: Path, host: str, port: int) -> None:
    """Serve SavedModels over TensorFlow Serving's gRPC API."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
    from serving.model_server.repository import Repository, RepositorySettings
    from serving.model_server.runner import SavedModel
    from serving.model_server.server import GrpcSettings, serve

    settings = RepositorySettings(fall_back=True)
    repository = Repository(lambda _name, _version, path: SavedModel(path), settings, models_dir=models)
    serve(repository, GrpcSettings(host, port))


if __name__ == "__main__":
    sightline.run(model_server, "python -m serving.model_server")
