"""One file per model family. A family is discovered because its file is here; it brings its own commands.

A family's module is named after it (a dash in the command is an underscore in the file) and defines `command`, a click
command. It may also define `aliases`, a dictionary of more commands by name. TensorFlow is imported inside functions:
`sightline export --help` imports every family.
"""

import importlib
import pkgutil
from typing import Any

import click


def family_names() -> list[str]:
    """The families, in alphabetical order."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def command_names() -> list[str]:
    """The families and their aliases, in alphabetical order."""
    return sorted({*family_names(), *(alias for family in family_names() for alias in _aliases(family))})


def family_command(name: str) -> click.Command | None:
    """Find a command by its name; None where no family has it."""
    if name in family_names():
        command: click.Command = _module(name).command
        return command
    return next((aliases[name] for aliases in map(_aliases, family_names()) if name in aliases), None)


def _aliases(family: str) -> dict[str, click.Command]:
    return getattr(_module(family), "aliases", {})


def _module(family: str) -> Any:
    return importlib.import_module(f"{__name__}.{family.replace('-', '_')}")
