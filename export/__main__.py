"""`sightline export FAMILY`, also `python -m export`: the only module of export that reads the environment."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import click
from sightline.cli import SuggestingGroup, run

from export.families import command_names, family_command
from export.networks.pretrained import BACKBONES
from export.options import Environment
from export.progress import PROGRESS_FILE
from serving.contract.errors import UsageError
from serving.contract.versions import SAVED_MODEL_FILE, version_dirs


class Families(SuggestingGroup):
    """The commands that are discovered in export/families, and the ones that are defined here."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*command_names(), *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or family_command(cmd_name)

    def candidates(self, ctx: click.Context) -> Mapping[str, str]:
        """The commands, and `imagenet` with each of its architectures."""
        architectures = {arch: f"{ctx.command_path} imagenet --arch {arch}" for arch in BACKBONES}
        return {**architectures, **super().candidates(ctx)}


@click.group(cls=Families, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--progress-file", type=click.Path(path_type=Path), hidden=True, help="Given by `sightline serve`.")
@click.pass_context
def export(ctx: click.Context, progress_file: Path | None) -> None:
    """Train or load a model and publish it as models/NAME/VERSION.

    \b
    sightline export digits
    sightline export fashion --data ~/fashion-mnist
    """
    if progress_file:
        PROGRESS_FILE.write_to(progress_file)
    root = os.environ.get("SIGHTLINE_DATA")
    keras_home = os.environ.get("KERAS_HOME")
    ctx.obj = Environment(
        root=Path(root) if root else None, keras=Path(keras_home) if keras_home else Path.home() / ".keras"
    )


@export.command("verify")
@click.argument("version_dir", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@click.pass_context
def verify_command(ctx: click.Context, version_dir: Path, as_json: bool) -> None:
    """Reload a version and replay its golden examples.

    \b
    sightline export verify models/digits/1
    """
    from export.artifact.verify import verify

    versions = version_dirs(version_dir)
    if versions and not (version_dir / SAVED_MODEL_FILE).exists():
        raise UsageError(f"{version_dir} is a model, not a version.", hint=f"Name a version: {versions[-1]}")
    verdict = verify(version_dir)
    if as_json:
        click.echo(json.dumps(asdict(verdict)))
    else:
        files = f"; {verdict.unproven}" if verdict.unproven else ""
        click.echo(f"{'ok' if verdict.ok else 'FAILED'}: stage {verdict.stage}: {verdict.detail}{files}")
    ctx.exit(0 if verdict.ok else 1)


@export.command("serving-config")
@click.option("--models", type=click.Path(path_type=Path, exists=True, file_okay=False), default=Path("models"))
@click.option("--base", help="Path of the folder on the server.  [default: as in models.config, else /models]")
def serving_config_command(models: Path, base: str | None) -> None:
    """Write TensorFlow Serving's files.

    They are in models/serving-config; every export refreshes them.

    \b
    sightline export serving-config
    sightline export serving-config --base "$PWD/models"
    """
    from export.artifact.serving_config import refresh

    click.echo(refresh(models, base))


if __name__ == "__main__":
    run(export, "python -m export")
