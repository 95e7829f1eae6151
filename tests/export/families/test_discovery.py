"""Families and their commands are discovered."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from export.__main__ import export
from export.families import command_names, family_names
from serving.contract.errors import UsageError

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


@pytest.mark.parametrize(
    ("tried", "meant"),
    [
        ("mobilenetv2", "export imagenet --arch mobilenetv2"),
        ("mobilenet_v2", "export imagenet --arch mobilenetv2"),
        ("efficientnet-lite0", "export imagenet --arch efficientnetlite0"),
        ("digit", "export digits"),
    ],
)
def test_a_near_miss_gets_a_suggestion(tried: str, meant: str) -> None:
    result = CliRunner().invoke(export, [tried])
    assert result.exit_code == 2
    assert f"There is no command `export {tried}`. Did you mean `{meant}`?" in result.output


def test_what_is_near_nothing_gets_none() -> None:
    assert "Did you mean" not in CliRunner().invoke(export, ["qqqqqq"]).output


def test_verifying_a_model_asks_for_a_version(tmp_path: Path) -> None:
    (tmp_path / "mine" / "4").mkdir(parents=True)
    with pytest.raises(UsageError, match="is a model, not a version") as raised:
        CliRunner().invoke(export, ["verify", str(tmp_path / "mine")], catch_exceptions=False)
    assert raised.value.hint == f"Name a version: {tmp_path}/mine/4"


def test_without_tensorflow_an_export_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(UsageError) as raised:
        CliRunner().invoke(export, ["digits", "--out", str(tmp_path)], catch_exceptions=False)
    assert "sightline-serving[tensorflow]" in raised.value.hint
    assert list(tmp_path.iterdir()) == []
