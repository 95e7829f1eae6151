"""Families and their commands are discovered."""

import pytest
from click.testing import CliRunner

from export.__main__ import export
from export.families import command_names, family_names

pytest.importorskip("tensorflow")


def test_every_command_has_a_help_with_an_example() -> None:
    assert {"digits", "from-scratch", "face-encoder"} < set(family_names())
    for name in command_names():
        result = CliRunner().invoke(export, [name, "--help"])
        assert result.exit_code == 0, result.output
        assert f"sightline export {name}" in result.output


def test_the_commands_of_single_architectures_stay_and_are_no_families() -> None:
    assert set(command_names()) - set(family_names()) == {"vggnet", "googlenet", "resnet50"}
    listed = CliRunner().invoke(export, ["--help"]).output
    assert all(f"  {name} " in listed for name in command_names())
    assert CliRunner().invoke(export, ["alexnet"]).exit_code == 2
