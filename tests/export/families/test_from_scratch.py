"""Classic architectures, trained on a folder of images. tests/e2e/test_every_family.py trains each of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from export.families.from_scratch import ARCHITECTURES
from export.options import Target
from export.pipeline import Recipe
from serving.contract.errors import UsageError

pytest.importorskip("tensorflow")


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Recipe, Target]]:
    """The exports that commands ask for; none is carried out."""
    asked: list[tuple[Recipe, Target]] = []
    monkeypatch.setattr("export.families.from_scratch.export", lambda recipe, target: asked.append((recipe, target)))
    return asked


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_an_architecture_is_trained_the_same_under_its_own_command(
    run: Callable[..., Result], exports: list[tuple[Recipe, Target]], photos: Path, arch: str
) -> None:
    options = ("--data", photos, "--image-size", 32, "--epochs", 1, "--strict", "--name", "flowers")
    run("from-scratch", "--arch", arch, *options)
    run(arch, *options)
    (by_option, option_target), (by_command, command_target) = exports
    assert by_option.family == by_command.family == arch
    assert option_target == command_target
    load, build, plan = by_option.make.args
    assert (build, plan) == (ARCHITECTURES[arch], by_command.make.args[2])
    assert build is by_command.make.args[1]
    assert load().labels == by_command.make.args[0]().labels


def test_a_command_names_its_model(
    run: Callable[..., Result], exports: list[tuple[Recipe, Target]], photos: Path
) -> None:
    run("googlenet", "--data", photos)
    run("from-scratch", "--data", photos)
    assert [target.name for _, target in exports] == ["googlenet", "from-scratch"]


def test_images_of_ones_own_are_needed(run: Callable[..., Result]) -> None:
    with pytest.raises(UsageError, match="--data"):
        run("from-scratch")
    with pytest.raises(UsageError, match="holds no version"):
        run("vggnet", "--report-only")
