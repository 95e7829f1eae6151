"""One file per model family. A family is found because its file is here; it brings its own subcommand.

A family's module is named after it and has `command`, a click command. TensorFlow is imported inside functions:
`sightline export --help` imports every family.
"""

import importlib
import pkgutil

import click


def family_names() -> list[str]:
    """The families that are there, in alphabetical order. A name in a command has a dash where the file has none."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def family_command(name: str) -> click.Command:
    """The subcommand of a family. name: one of `family_names()`."""
    command: click.Command = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").command
    return command
