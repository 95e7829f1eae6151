"""A new head on a pretrained backbone, from folders and CSV files."""

import csv
import os
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from export.__main__ import export
from export.families.transfer import Head, HeadType
from serving.contract.card import read_card
from serving.contract.errors import InvalidData, SightlineError

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

Export = Callable[..., Path]


def test_transfer_learns_from_a_folder_and_records_the_split(exported: Export, photos: Path, tmp_path: Path) -> None:
    version = exported(
        *("transfer", "--data", photos, "--weights", "none", "--image-size", 32, "--epochs", 3),
        *("--fine-tune", 3, "--head", "max:8:0.1", "--name", "colours"),
    )
    assert read_card(version).label_names == ("blue", "red")
    with (tmp_path / "reports" / "colours" / "1" / "split.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert {row["split"] for row in rows} == {"train", "validation", "test"}


def test_transfer_reads_a_csv_and_names_what_it_cannot_read(run: Callable[..., Result], photos: Path) -> None:
    (photos / "red" / "broken.png").write_bytes((photos / "red" / "00.png").read_bytes()[:200])
    rows = [f"{path.relative_to(photos)},{path.parent.name}" for path in sorted(photos.glob("*/*.png"))]
    (photos / "all.csv").write_text("\n".join(["path,label", *rows, "red/missing.png,red"]))
    options = ("transfer", "--data", photos / "all.csv", "--weights", "none", "--image-size", 32, "--epochs", 1)
    result = run(*options, "--name", "csv", "--folds", 2)
    card = read_card(Path(result.stdout.strip().splitlines()[-1]))
    assert {"fold_accuracy_mean", "fold_accuracy_deviation"} < set(card.metrics)
    assert "2 of 26 images cannot be read" in result.stderr
    assert "broken.png" in result.stderr
    with pytest.raises(InvalidData, match="2 images cannot be read"):
        run(*options, "--strict")


def test_folders_that_cannot_be_trained_on_are_refused(run: Callable[..., Result], photos: Path) -> None:
    options = ("--weights", "none", "--image-size", 32)
    with pytest.raises(SightlineError, match="so it has no classes"):
        run("transfer", "--data", photos / "red", *options)
    for path in sorted((photos / "blue").iterdir())[1:]:
        path.unlink()
    with pytest.raises(InvalidData, match="too few for a split"):
        run("transfer", "--data", photos, *options)
    (photos / "blue" / "00.png").unlink()
    with pytest.raises(InvalidData, match="'blue' has no training images"):
        run("transfer", "--data", photos, *options)
    (photos / "blue").rmdir()
    with pytest.raises(InvalidData, match="a classifier needs two"):
        run("transfer", "--data", photos, *options)


@pytest.mark.skipif("SIGHTLINE_DATA" not in os.environ, reason="SIGHTLINE_DATA is not set")
@pytest.mark.slow
def test_ants_and_bees_are_told_apart(tmp_path: Path) -> None:
    root = os.environ["SIGHTLINE_DATA"]
    arguments = ["transfer", "--data", f"{root}/ants_bees", "--out", str(tmp_path), "--reports", str(tmp_path / "r")]
    result = CliRunner().invoke(export, arguments, catch_exceptions=False)
    card = read_card(Path(result.stdout.strip()))
    assert card.metrics["test_accuracy"] >= 0.94  # 47 of 50


@pytest.mark.parametrize(
    ("text", "head"),
    [
        ("avg", Head("avg", 0, 0.3)),
        ("max:256", Head("max", 256, 0.3)),
        ("avg:128:0.5", Head("avg", 128, 0.5)),
        ("max:0:0", Head("max", 0, 0.0)),
    ],
)
def test_a_head_has_dropout_unless_it_is_turned_off(text: str, head: Head) -> None:
    assert HeadType().convert(text, None, None) == head


@pytest.mark.parametrize("text", ["", "min", "avg:x", "avg:-1", "avg:8:1", "avg:8:0.1:2", "avg::"])
def test_a_head_that_cannot_be_built_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="POOLING"):
        HeadType().convert(text, None, None)
