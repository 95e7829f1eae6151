"""The `sightline` command: a table of subcommands, each loaded only when it is called.

`sightline predict` therefore never imports TensorFlow or Flask, and `sightline --help` imports nothing at all.
"""

import importlib
import sys

import click

from serving.contract.errors import SightlineError, UsageError

# name: (module, attribute, one line of help). Keep the order in which a newcomer meets them.
COMMANDS = {
    "serve": ("serving.__main__", "serve", "Start the model server and the gateway."),
    "export": ("export.__main__", "export", "Train or load a model and publish it."),
    "predict": ("clients.commands", "predict", "Ask a running service for the labels of pictures."),
    "score": ("clients.batch.score", "score", "Score a folder, a list or an archive of pictures into a file."),
    "review": ("clients.batch.review", "review", "Look through scored pictures and correct them, on one offline page."),
    "compare-models": ("clients.batch.compare", "compare_models", "Two models or versions over the same pictures."),
    "faces": ("clients.faces", "faces", "Know people by their photos."),
    "models": ("clients.commands", "models", "List what a running service serves."),
    "tune": ("serving.tuning.tune", "tune", "Find the settings that suit this machine and a model."),
    "doctor": ("clients.doctor", "doctor", "Replay a model's golden examples through every stage."),
}


class LazyGroup(click.Group):
    """A click group whose commands are imported when they are called, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as exc:
            raise UsageError(
                f"`sightline {cmd_name}` needs the package {exc.name}, which is not installed",
                hint="Install what it belongs to: pip install 'sightline[gateway,tensorflow,faces]'.",
            ) from exc
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sightline-serving")
def cli() -> None:
    """Serve trained and pretrained image classifiers: POST a picture, get its label."""


def run(command: click.Command, prog_name: str | None = None) -> None:
    """Run a command as a process does: an error of ours is a message on stderr and an exit status, never a traceback.

    Exit 0: done. 1: some or all of it failed. 2: the command was not usable as given.
    """
    try:
        command(prog_name=prog_name)
    except SightlineError as exc:
        click.echo(f"sightline: {exc.detail}", err=True)
        if exc.hint:
            click.echo(f"  {exc.hint}", err=True)
        sys.exit(exc.exit_status)


def main() -> None:
    """The console script."""
    run(cli, "sightline")
