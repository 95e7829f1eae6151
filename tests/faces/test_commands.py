"""`sightline faces`, as a person at the terminal meets it."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image, ImageFilter
from sightline import ServiceUnreachable, UsageError
from werkzeug.serving import make_server

from clients.faces import faces as command
from serving.backend.backends import Backends
from serving.backend.grpc_predictor import GrpcPredictor
from serving.faces.recognition import Faces
from serving.gateway.app import create_app
from serving.gateway.settings import Settings

pytest.importorskip("dlib")

pytestmark = pytest.mark.integration


@pytest.fixture(params=["here", "served"])
def sightline(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `sightline faces ...` on a gallery of its own, directly and through a service."""
    monkeypatch.setenv("SIGHTLINE_FACES_URL", f"sqlite:///{tmp_path}/faces.db")
    if request.param == "served":
        monkeypatch.setenv("SIGHTLINE_URL", request.getfixturevalue("served"))

    def run(*arguments: object, exit_code: int = 0) -> Result:
        result = CliRunner().invoke(command, [str(argument) for argument in arguments])
        assert result.exit_code == exit_code, result.output
        return result

    return run


@pytest.fixture
def served(faces: Faces) -> Iterator[str]:
    """The address of a gateway over the gallery of this test."""
    backends = Backends(["127.0.0.1:9"])  # never asked
    server = make_server("127.0.0.1", 0, create_app(Settings(), GrpcPredictor(backends), faces), threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
    backends.close()


def statuses(result: Result) -> dict[str, str]:
    return {Path(row["file"]).name: row["status"] for row in json.loads(result.stdout)["photos"]}


def test_folder_is_enrolled_and_people_are_identified(sightline: Any, photos: Path, tmp_path: Path) -> None:
    assert set(statuses(sightline("enrol", photos / "known", "--json")).values()) == {"enrolled"}
    assert set(statuses(sightline("enrol", photos / "known", "--json")).values()) == {"already"}
    two = photos / "unknown" / "two_people.jpg"
    result = sightline("identify", two, "--json", "--annotate", tmp_path / "framed")
    (photo,) = json.loads(result.stdout)["photos"]
    assert sorted(face["name"] for face in photo["faces"]) == ["biden", "obama"]
    with Image.open(tmp_path / "framed" / "two_people.png") as framed, Image.open(two) as plain:
        assert framed.size == plain.size
    assert "obama" in sightline("list").output
    assert "the same person" in sightline("compare", photos / "known" / "obama.jpg", two, "--tolerance", "1").output
    assert "tolerance" in sightline("advise", "--histogram", tmp_path / "h.png").output
    assert (tmp_path / "h.png").exists()
    assert "Forgot obama" in sightline("forget", "obama").output
    assert "obama" not in sightline("list").output
    assert "Wrote 4 encodings" in sightline("export", tmp_path / "x.jsonl").output
    assert "Added 4 encodings to copy" in sightline("import", tmp_path / "x.jsonl", "--gallery", "copy").output
    assert "copy" in sightline("galleries").output
    assert "Dropped copy" in sightline("drop", "copy", "--yes").output
    assert [row["action"] for row in json.loads(sightline("audit", "--json").stdout)["records"]][-2:] == [
        "enrol",
        "drop",
    ]


def test_folder_per_person_is_all_reported(sightline: Any, photos: Path, tmp_path: Path) -> None:
    people = tmp_path / "people"
    (people / "Barack Obama").mkdir(parents=True)
    shutil.copy(photos / "known" / "obama.jpg", people / "Barack Obama" / "one.jpg")
    shutil.copy(photos / "unknown" / "obama2.jpg", people / "Barack Obama" / "two.jpg")
    with Image.open(photos / "known" / "obama.jpg") as sharp:
        sharp.filter(ImageFilter.GaussianBlur(9)).save(people / "Barack Obama" / "blurred.jpg")
    (people / "Barack Obama" / "notes.txt").write_text("not a photo")
    (people / ".hidden").write_text("")
    result = sightline("enrol", people, "--json", exit_code=1)
    assert statuses(result) == {
        "one.jpg": "enrolled",
        "two.jpg": "enrolled",
        "blurred.jpg": "refused",
        "notes.txt": "failed",
    }
    rows = {Path(row["file"]).name: row for row in json.loads(result.stdout)["photos"]}
    assert rows["blurred.jpg"]["reasons"][0]["code"] == "blurred"
    assert rows["notes.txt"]["code"] == "not_an_image"
    assert "hold still" in sightline("enrol", people, exit_code=1).output
    assert json.loads(sightline("list", "--json").stdout)["people"][0]["encodings"] == 2
    sightline("enrol", people, "--replace", exit_code=1)
    assert json.loads(sightline("list", "--json").stdout)["people"][0]["encodings"] == 2


def test_photo_that_fails_does_not_stop_the_others(sightline: Any, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"hello")
    result = sightline("identify", tmp_path / "x.jpg", photos / "known" / "obama.jpg", "--json", exit_code=1)
    first, second = json.loads(result.stdout)["photos"]
    assert first["code"] == "not_an_image"
    assert len(second["faces"]) == 1


def failure(*arguments: object) -> Any:
    """The error that a command ends with."""
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert hasattr(result.exception, "exit_status"), result.output
    return result.exception


def test_both_ways_fail_alike(sightline: Any, photos: Path, tmp_path: Path) -> None:
    Image.new("RGB", (200, 100), "teal").save(tmp_path / "blank.png")
    obama = photos / "known" / "obama.jpg"
    assert failure("compare", obama, tmp_path / "blank.png").code == "no_face"
    for arguments in (("forget", "nobody"), ("list", "--gallery", "nowhere"), ("forget", "a/b")):
        error = failure(*arguments)
        assert error.exit_status == 2
        assert error.hint
    assert failure("identify", obama, "--tolerance", "7").exit_status == 2
    assert failure("identify", obama, "--gallery", "Not one").exit_status == 2
    assert failure("enrol", photos / "known", "--expires", "soon").exit_status == 2
    assert json.loads(sightline("list", "--json").stdout)["people"] == []


def test_a_service_or_a_store_is_asked_and_not_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url, store = "http://127.0.0.1:9", f"sqlite:///{tmp_path}/x.db"
    both = CliRunner().invoke(command, ["--store", store, "list", "--url", url])
    assert isinstance(both.exception, UsageError)
    monkeypatch.setenv("SIGHTLINE_URL", url)
    assert isinstance(CliRunner().invoke(command, ["list"]).exception, ServiceUnreachable)
    assert CliRunner().invoke(command, ["--store", store, "list"]).exit_code == 0


def test_reading_where_there_is_no_gallery_says_where_and_makes_none(photos: Path, tmp_path: Path) -> None:
    runner, store = CliRunner(), f"sqlite:///{tmp_path}/faces.db"
    obama = photos / "known" / "obama.jpg"
    for arguments in (
        ["list", "--json"],
        ["galleries", "--json"],
        ["audit", "--json"],
        ["identify", str(obama), "--json"],
    ):
        result = runner.invoke(command, ["--store", store, *arguments])
        assert result.exit_code == 0, result.output
        assert f"There is no gallery at {tmp_path}/faces.db: nobody is known there." in result.stderr
        json.loads(result.stdout)
    assert list(tmp_path.iterdir()) == []
    (photo,) = json.loads(result.stdout)["photos"]
    assert [face["name"] for face in photo["faces"]] == [None]
    assert runner.invoke(command, ["--store", store, "enrol", str(photos / "known")]).exit_code == 0
    assert (tmp_path / "faces.db").exists()
