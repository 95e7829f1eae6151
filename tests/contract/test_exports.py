"""The states of exports beside a service."""

from pathlib import Path

from serving.contract.exports import ExportState, read_states, update_state, write_state


def test_an_export_updates_its_own_state_and_the_order_stays(tmp_path: Path) -> None:
    write_state(tmp_path / "1-digits.json", ExportState("digits", "waiting"))
    write_state(tmp_path / "0-imagenet.json", ExportState("imagenet", "running"))
    update_state(tmp_path / "0-imagenet.json", "epoch 1 of 4", 0.25)
    states = read_states(tmp_path)
    assert states == [ExportState("imagenet", "running", "epoch 1 of 4", 0.25), ExportState("digits", "waiting")]
    assert [str(state) for state in states] == ["imagenet (epoch 1 of 4)", "digits (waiting)"]


def test_without_a_folder_there_are_no_exports(tmp_path: Path) -> None:
    assert read_states(None) == read_states(tmp_path / "nowhere") == []
