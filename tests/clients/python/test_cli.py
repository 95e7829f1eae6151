import subprocess
import sys
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner
from sightline import BadImage, MissingPackage
from sightline.cli import COMMANDS, cli, missing, run

from serving.contract.errors import PortTaken


def test_help_lists_every_command_and_imports_none() -> None:
    listed = CliRunner().invoke(cli, ["--help"]).output
    for name, command in COMMANDS.items():
        assert f"  {name} " in listed
        assert command.help in " ".join(listed.split())


@pytest.mark.integration
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_has_help(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sightline", name, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"sightline {name}" in done.stdout


@pytest.mark.parametrize(
    ("error", "status", "lines"),
    [
        (BadImage("it is no picture", hint="Send one."), 1, ["sightline: it is no picture.", "  Send one."]),
        (MissingPackage("this needs ray."), 2, ["sightline: this needs ray."]),
        (PortTaken("the port is taken", hint="Wait."), 2, ["sightline: the port is taken.", "  Wait."]),
    ],
    ids=["client", "package", "service"],
)
def test_an_error_is_a_message_and_an_exit_status(
    error: Exception, status: int, lines: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["sightline"])
    with pytest.raises(SystemExit) as ended:
        run(click.command()(raising(error)))
    assert ended.value.code == status
    assert capsys.readouterr().err.splitlines() == lines


def test_an_unknown_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sightline"])
    with pytest.raises(ZeroDivisionError):
        run(click.command()(raising(ZeroDivisionError())))


def raising(error: Exception) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def test_a_missing_package_is_named_with_the_extra_that_brings_it() -> None:
    error = missing("`sightline serve`", ModuleNotFoundError("No module named 'flask'", name="flask.app"), "gateway")
    assert error.detail == "`sightline serve` needs the package flask, which is not installed."
    assert error.hint == "Install it: pip install 'sightline-serving[gateway] @ file:///path/to/clone'."


def test_a_stranger_in_the_place_of_our_package_is_named() -> None:
    error = missing(
        "`sightline serve`", ModuleNotFoundError("No module named 'serving.x'", name="serving.x"), "gateway"
    )
    assert "serving/__init__.py is imported in its place" in error.detail
