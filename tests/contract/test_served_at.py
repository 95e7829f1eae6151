"""The note of where a folder of models is served."""

import socket
from pathlib import Path

from serving.contract.served_at import read_address, remove_address, write_address


def test_the_address_is_known_while_something_listens_there(tmp_path: Path) -> None:
    assert read_address(tmp_path) is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        write_address(tmp_path, url)
        assert read_address(tmp_path) == url
    assert read_address(tmp_path) is None  # killed: its note stays, and nothing listens
    remove_address(tmp_path)
    remove_address(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_goes_without(tmp_path: Path) -> None:
    write_address(tmp_path / "nowhere", "http://127.0.0.1:1")
    assert read_address(tmp_path / "nowhere") is None
