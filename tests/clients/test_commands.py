import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sightline import ServiceUnreachable, UsageError
from sightline.cli import cli

from clients.commands import models, predict, printable
from tests.clients.shades import WITH_IDS, Service, png


def asked(service: Service, *arguments: str) -> Result:
    return CliRunner().invoke(predict, ["--url", service.url, "--model", "shades", *arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "night.png").write_bytes(png(10))
    (tmp_path / "day [1].png").write_bytes(png(250))
    (tmp_path / "text.png").write_bytes(b"hello")
    return tmp_path


def test_a_table_names_label_score_and_runners_up(service: Service, folder: Path) -> None:
    result = asked(service, str(folder / "night.png"), str(folder / "day [1].png"))
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert "night.png" in lines[1]
    assert "black  0.7000  dark 0.100, light 0.100, white 0.100" in lines[1]
    assert "day [1].png" in lines[2]


def test_a_label_that_is_not_certain_enough_is_not_named(service: Service, folder: Path) -> None:
    result = asked(service, "--min-score", "0.8", str(folder / "night.png"))
    assert "uncertain  0.7000  black 0.700, dark 0.100" in result.output
    (row,) = json.loads(asked(service, "--min-score", "0.8", "--json", str(folder / "night.png")).output)["predictions"]
    assert (row["label"], row["reason"], row["top"][0]["label"]) == (None, "uncertain", "black")
    assert asked(service, "--min-score", "8", str(folder / "night.png")).exit_code == 2


def test_a_picture_that_fails_is_a_row_and_exit_1(service: Service, folder: Path) -> None:
    result = asked(service, str(folder / "text.png"), str(folder / "night.png"), str(folder / "gone.png"))
    assert result.exit_code == 1
    assert "not_an_image" in result.output
    assert "are not a picture in a known format. " in result.output  # what to do is a sentence of its own
    assert "unreadable_file" in result.output
    assert "black" in result.output


def test_a_folder_is_classified_with_its_folders_in_the_order_of_names(service: Service, folder: Path) -> None:
    (folder / "more" / "deep").mkdir(parents=True)
    (folder / "more" / "deep" / "noon.png").write_bytes(png(250))
    (folder / "more" / "dusk.png").write_bytes(png(10))
    (folder / "notes.md").write_text("no image")
    (folder / ".hidden.png").write_bytes(png(10))
    result = asked(service, str(folder))
    assert result.exit_code == 1  # of the text that claims to be a PNG
    names = ["day [1].png", "night.png", "text.png", "more/dusk.png", "more/deep/noon.png"]
    rows = result.stdout.splitlines()
    assert rows[0].split() == ["file", "label", "score", "runners-up"]
    assert [str(folder / name) in row for name, row in zip(names, rows[1:], strict=True)] == [True] * 5
    assert result.stderr.splitlines() == [
        "5 images: 4 classified, 1 failed",
        "left out: 1 hidden (.hidden.png)",
        "left out: 1 not pictures (notes.md)",
    ]
    answer = json.loads(asked(service, "--json", str(folder / "more")).stdout)
    assert [row["file"] for row in answer["predictions"]] == [str(folder / name) for name in names[3:]]


def test_a_folder_without_an_image_is_a_usage_error(service: Service, tmp_path: Path) -> None:
    result = asked(service, str(tmp_path))
    assert isinstance(result.exception, UsageError)
    assert str(tmp_path) in str(result.exception)


def test_json_holds_every_picture(service: Service, folder: Path) -> None:
    result = asked(service, "--json", "--top", "2", str(folder / "text.png"), str(folder / "night.png"))
    assert result.exit_code == 1
    answer = json.loads(result.output)
    assert (answer["model"], answer["version"]) == ("shades", 1)
    bad, good = answer["predictions"]
    assert bad["code"] == "not_an_image"
    assert (good["label"], [row["label"] for row in good["top"]]) == ("black", ["black", "dark"])
    assert "id" not in good
    assert list(good["top"][0]) == ["label", "index", "score"]
    assert good["file"] == str(folder / "night.png")


def test_the_id_of_a_class_stands_beside_its_label(service: Service, folder: Path) -> None:
    service.predictor.card = replace(service.predictor.card, labels=WITH_IDS)
    night = str(folder / "night.png")
    assert "black (n0)  0.7000  dark (n1) 0.100" in asked(service, night).output
    (row,) = json.loads(asked(service, "--json", "--top", "1", night).output)["predictions"]
    assert (row["label"], row["id"]) == ("black", "n0")
    assert row["top"] == [{"label": "black", "id": "n0", "index": 0, "score": pytest.approx(0.7)}]


def test_an_unknown_model_and_no_service_end_the_command(service: Service, folder: Path) -> None:
    arguments = ["--model", "nobody", str(folder / "night.png")]
    assert isinstance(CliRunner().invoke(predict, ["--url", service.url, *arguments]).exception, UsageError)
    absent = CliRunner().invoke(predict, ["--url", "http://127.0.0.1:1", *arguments])
    assert isinstance(absent.exception, ServiceUnreachable)
    assert CliRunner().invoke(predict, ["--url", service.url]).exit_code == 2


def test_models_are_listed(service: Service) -> None:
    result = CliRunner().invoke(models, ["--url", service.url])
    assert result.output.splitlines()[1].split() == ["shades", "1", "AVAILABLE"]
    listed = json.loads(CliRunner().invoke(models, ["--url", service.url, "--json"]).output)
    assert listed == {"models": [{"name": "shades", "versions": [{"version": 1, "state": "AVAILABLE", "error": ""}]}]}


def test_names_that_a_terminal_cannot_show_are_escaped() -> None:
    assert printable(os.fsdecode(b"caf\xc3\xa9\n\xff")) == "café\\n\\xff"


@pytest.mark.integration
def test_the_command_itself_says_what_is_wrong_and_exits_2(folder: Path) -> None:
    command = [sys.executable, "-m", "clients", "predict", "--model", "shades", "--url", "http://127.0.0.1:1"]
    done = subprocess.run([*command, folder / "night.png"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("sightline: No service at http://127.0.0.1:1")
    assert "Traceback" not in done.stderr


@pytest.mark.integration
def test_the_client_loads_neither_tensorflow_nor_flask() -> None:
    code = (
        "import sys, clients.__main__, sightline, clients.doctor\n"
        "print([name for name in ('tensorflow', 'flask', 'gunicorn', 'keras') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_command_that_does_not_exist_gets_a_suggestion() -> None:
    result = CliRunner().invoke(cli, ["predct", "shoe.png"], prog_name="sightline")
    assert result.exit_code == 2
    assert "There is no command `sightline predct`. Did you mean `sightline predict`?" in result.output
