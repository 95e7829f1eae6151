"""Lines, tables and the file that tell how far an export is."""

from pathlib import Path

import pytest

from export.progress import ProgressFile, say_table, training_progress
from serving.contract.exports import ExportState, read_state, write_state


@pytest.mark.integration
@pytest.mark.parametrize(("epochs", "shown"), [(100, [20, 40, 60, 80, 100]), (3, [1, 2, 3])])
def test_a_training_is_a_few_lines_in_a_log(capsys: pytest.CaptureFixture[str], epochs: int, shown: list[int]) -> None:
    for callback in training_progress(epochs, steps=1):
        for epoch in range(epochs):
            callback.on_epoch_begin(epoch, {})
            callback.on_epoch_end(epoch, {"loss": 0.5, "val_accuracy": 0.75})
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"epoch {epoch}/{epochs}  loss 0.5000  val_accuracy 0.7500" for epoch in shown]


def test_numbers_of_a_table_are_flush_right(capsys: pytest.CaptureFixture[str]) -> None:
    say_table("the best", ("split", "images"), [("training", "57,000"), ("test", "9")])
    title, *lines = (line.rstrip() for line in capsys.readouterr().err.splitlines())
    assert title == "the best"
    assert lines == ["split     images", "training  57,000", "test           9"]


def test_the_file_tells_what_the_export_is_doing(tmp_path: Path) -> None:
    file, progress = tmp_path / "0-digits.json", ProgressFile()
    progress.tell("nobody asked")
    write_state(file, ExportState("digits", "running"))
    progress.write_to(file)
    progress.tell("epoch 2 of at most 4", 0.25)
    progress.tell_sometimes("too soon after", 0.3)
    assert read_state(file) == ExportState("digits", "running", "epoch 2 of at most 4", 0.25)
