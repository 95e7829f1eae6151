"""The `sightline` command: a table of subcommands, each imported only when it is called.

`sightline predict` therefore never imports TensorFlow or Flask, and `sightline --help` imports no subcommand at all.
"""

import difflib
import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from sightline.errors import MissingPackage, install_hint, sentence

OURS = ("clients", "export", "serving")  # packages of this distribution; anything else is one of an extra


@dataclass(frozen=True, slots=True)
class Subcommand:
    """A command by its module and name. extras: what has to be installed for it; "" where the client alone suffices."""

    module: str
    name: str
    help: str
    extras: str = ""


# Keep the order in which a newcomer meets them.
COMMANDS = {
    "serve": Subcommand("serving.__main__", "serve", "Start the model server and the gateway.", "gateway,model-server"),
    "export": Subcommand("export.__main__", "export", "Train or load a model and publish it.", "tensorflow"),
    "predict": Subcommand("clients.commands", "predict", "Classify images by a running service."),
    "score": Subcommand("clients.batch.score", "score", "Score many pictures into a file."),
    "review": Subcommand("clients.batch.review", "review", "Look through scored pictures on one offline page."),
    "compare-models": Subcommand(
        "clients.batch.compare", "compare_models", "Compare two models or versions over the same pictures."
    ),
    "faces": Subcommand("clients.faces", "faces", "Know people by their photos."),
    "models": Subcommand("clients.commands", "models", "List the models of a running service."),
    "tune": Subcommand(
        "serving.tuning.tune", "tune", "Find the settings that suit this machine and a model.", "gateway,model-server"
    ),
    "doctor": Subcommand(
        "clients.doctor", "doctor", "Replay a model's golden examples through every stage.", "gateway"
    ),
}


class SuggestingGroup(click.Group):
    """A click group that suggests the nearest command for one that does not exist."""

    def candidates(self, ctx: click.Context) -> Mapping[str, str]:
        """Map words that people may try to the commands that they mean."""
        return {name: f"{ctx.command_path} {name}" for name in self.list_commands(ctx)}

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            known = self.candidates(ctx)
            near = difflib.get_close_matches(name.lower(), known, n=1)
            meant = f" Did you mean `{known[near[0]]}`?" if near else ""
            raise click.UsageError(f"There is no command `{ctx.command_path} {name}`.{meant}", ctx)
        return super().resolve_command(ctx, args)


class LazyGroup(SuggestingGroup):
    """A click group whose commands are imported when they are called, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        wanted = COMMANDS[cmd_name]
        try:
            command: click.Command = getattr(importlib.import_module(wanted.module), wanted.name)
        except ModuleNotFoundError as exc:
            raise missing(f"`sightline {cmd_name}`", exc, wanted.extras) from exc
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, wanted.help) for name, wanted in COMMANDS.items()])


def missing(what: str, exc: ModuleNotFoundError, extras: str) -> MissingPackage:
    """The error of a module that is not installed, or whose place a package of the same name has taken."""
    package = (exc.name or "").partition(".")[0]
    if package in OURS:
        found = getattr(sys.modules.get(package), "__file__", None)
        where = f": {found} is imported in its place" if found else ""
        return MissingPackage(
            f"{what} does not find Sightline's package {package}{where}.",
            hint="Run the installed command `sightline` in place of `python -m`, or install it into an environment of "
            "its own.",
        )
    hint = install_hint(extras) if extras else f"Install it: pip install {package}."
    return MissingPackage(f"{what} needs the package {package}, which is not installed.", hint=hint)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sightline-serving")
def cli() -> None:
    """Serve trained and pretrained image classifiers: POST a picture, get its label."""


def run(command: click.Command, prog_name: str | None = None) -> None:
    """Run a command as a process: an error with an `exit_status` is a message on stderr, never a traceback.

    Exit 0: done. 1: some or all of it failed. 2: the command was not usable as given.
    """
    try:
        command(prog_name=prog_name)
    except Exception as exc:  # the client's errors, and those of `serving.contract`, which this package never imports
        error: Any = exc
        if not hasattr(error, "exit_status"):
            raise
        click.echo(f"sightline: {sentence(error.detail)}", err=True)
        if error.hint:
            click.echo(f"  {error.hint}", err=True)
        sys.exit(error.exit_status)


def main() -> None:
    """The console script."""
    run(cli, "sightline")
