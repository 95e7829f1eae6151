import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from click.testing import Result as Invoked
from sightline import Client, UsageError

from clients.batch.errors import NotAJournal, ScoringStopped
from clients.batch.journal import Journal
from clients.batch.rows import FAILED, OK, Row
from clients.batch.score import score
from clients.batch.writers import read_rows
from serving.contract.names import shown_path
from tests.clients.batch.archives import windows_zip
from tests.clients.shades import WITH_IDS, Service, png

GRAYS = {"a.png": 10, "b.png": 100, "c/d.png": 150, "c/e.png": 250}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    (root / "c").mkdir(parents=True)
    for name, gray in GRAYS.items():
        (root / name).write_bytes(png(gray))
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.csv"


def scored(service: Service, source: Path | str, out: Path, *more: str) -> Invoked:
    arguments = [str(source), "--model", "shades", "--out", str(out), "--url", service.url, "--ordered", *more]
    return CliRunner().invoke(score, arguments)


def summary(result: Invoked) -> dict[str, object]:
    found: dict[str, object] = json.loads(result.stdout)
    return found


def rows(out: Path) -> list[Row]:
    return list(read_rows(str(out)))


def test_every_picture_has_one_row(service: Service, folder: Path, out: Path) -> None:
    result = scored(service, folder, out)
    assert result.exit_code == 0
    assert [(Path(row.path).name, row.label, row.status) for row in rows(out)] == [
        ("a.png", "black", OK), ("b.png", "dark", OK), ("d.png", "light", OK), ("e.png", "white", OK),
    ]  # fmt: skip
    first = rows(out)[0]
    assert (first.model, first.version, len(first.sha256), len(first.top)) == ("shades", 1, 64, 4)
    assert first.score == pytest.approx(0.7)
    assert "4 rows in" in result.stdout.replace("\n", " ")


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".sqlite"])
def test_ids_of_classes_are_written(service: Service, folder: Path, tmp_path: Path, ending: str) -> None:
    service.predictor.card = replace(service.predictor.card, labels=WITH_IDS)
    assert scored(service, folder, tmp_path / f"out{ending}", "--top", "2").exit_code == 0
    first = rows(tmp_path / f"out{ending}")[0]
    assert (first.label, first.label_id) == ("black", "n0")
    assert [(entry[0], entry[2]) for entry in first.top if len(entry) == 3] == [("black", "n0"), ("dark", "n1")]


def test_labels_and_scores_are_those_of_single_pictures(service: Service, folder: Path, out: Path) -> None:
    scored(service, folder, out)
    with Client(service.url) as client:
        for row in rows(out):
            single = client.predict(row.path, model="shades")
            assert (row.label, row.score) == (single.label, single.score)
            assert row.top == tuple((label.label, label.score) for label in single.top)


def test_failures_are_rows_too(service: Service, folder: Path, out: Path) -> None:
    (folder / "bad.png").write_bytes(b"text")
    (folder / "empty.png").write_bytes(b"")
    (folder / "gone.png").symlink_to("nowhere")
    os.mkdir(folder / os.fsdecode(b"odd \xff\n"))
    (folder / os.fsdecode(b"odd \xff\n") / "--x.png").write_bytes(png(10))
    result = scored(service, folder, out)
    assert result.exit_code == 1
    by_name = {Path(row.path).name: row for row in rows(out)}
    assert len(by_name) == 8
    assert {name: row.error_code for name, row in by_name.items() if row.status == FAILED} == {
        "bad.png": "not_an_image", "empty.png": "empty_image", "gone.png": "unreadable_file",
    }  # fmt: skip
    assert "odd \\xff\n/--x.png" in by_name["--x.png"].path
    assert by_name["bad.png"].sha256
    assert by_name["bad.png"].error


def test_a_file_that_vanishes_after_it_was_listed_is_a_row(service: Service, folder: Path, out: Path) -> None:
    names = folder / "names.txt"
    names.write_text(f"{folder}/a.png\n{folder}/vanished.png\n{folder}/a.png\n")
    assert scored(service, names, out).exit_code == 1
    assert [(row.label, row.error_code) for row in rows(out)] == [
        ("black", ""), ("", "unreadable_file"), ("black", ""),
    ]  # fmt: skip


def test_truth_of_a_table_comes_through(service: Service, folder: Path, tmp_path: Path, out: Path) -> None:
    table = tmp_path / "set.csv"
    table.write_text(f"path,truth\n{folder}/a.png,black\n{folder}/b.png,white\n")
    scored(service, table, out)
    assert [(row.truth, row.label) for row in rows(out)] == [("black", "black"), ("white", "dark")]


def test_the_same_command_again_does_nothing(service: Service, folder: Path, out: Path) -> None:
    (folder / "bad.png").write_bytes(b"text")
    first = summary(scored(service, folder, out, "--json"))
    before, asked = rows(out), len(service.predictor.batches)
    second = scored(service, folder, out, "--json")
    assert (first["answered"], summary(second)["answered"], second.exit_code) == (5, 0, 1)
    assert rows(out) == before
    assert len(service.predictor.batches) == asked
    out.unlink()
    assert scored(service, folder, out).exit_code == 1
    assert rows(out) == before


def test_what_is_there_is_never_overwritten_silently(service: Service, folder: Path, out: Path) -> None:
    out.write_text("precious")
    result = scored(service, folder, out)
    assert isinstance(result.exception, UsageError)
    assert out.read_text() == "precious"
    assert not Path(f"{out}.journal").exists()
    assert scored(service, folder, out, "--overwrite").exit_code == 0
    assert len(rows(out)) == 4
    other = scored(service, folder / "c", out)
    assert isinstance(other.exception, UsageError)
    assert "another run" in str(other.exception)
    assert scored(service, folder / "c", out, "--overwrite").exit_code == 0
    assert len(rows(out)) == 2


def test_what_failed_is_tried_again_when_asked(service: Service, folder: Path, out: Path) -> None:
    (folder / "bad.png").write_bytes(b"text")
    assert scored(service, folder, out).exit_code == 1
    (folder / "bad.png").write_bytes(png(250))
    assert scored(service, folder, out).exit_code == 1
    again = scored(service, folder, out, "--retry-failed", "--json")
    assert (again.exit_code, summary(again)["answered"]) == (0, 1)
    assert [row.label for row in rows(out)] == ["black", "dark", "white", "light", "white"]


def test_only_what_is_new_or_changed_is_scored_and_flips_are_told(service: Service, folder: Path, out: Path) -> None:
    (folder / "bad.png").write_bytes(b"text")
    scored(service, folder, out)
    service.predictor.batches.clear()
    (folder / "a.png").write_bytes(png(250))  # changed, and its label flips
    (folder / "new.png").write_bytes(png(10))
    (folder / "b.png").unlink()
    result = scored(service, folder, out, "--changed-only", "--json")
    found = summary(result)
    assert found["flips"] == [["black", "white", 1]]
    assert sum(service.predictor.batches) == 2
    by_name = {Path(row.path).name: row for row in rows(out)}
    assert sorted(by_name) == ["a.png", "bad.png", "d.png", "e.png", "new.png"]
    assert (by_name["a.png"].label, by_name["a.png"].previous_label) == ("white", "black")
    assert (by_name["d.png"].label, by_name["d.png"].previous_label) == ("light", "light")
    assert by_name["new.png"].previous_label == ""
    assert summary(scored(service, folder, out, "--changed-only", "--json"))["flips"] == []


def test_another_version_is_noticed(service: Service, folder: Path, out: Path) -> None:
    scored(service, folder, out)
    service.predictor.version, service.predictor.inverted_from = 2, 2
    with Journal(f"{out}.journal") as journal:
        journal._db.execute("DELETE FROM results WHERE ordinal = 4")  # as if it had been killed before the last
    mixed = scored(service, folder, out, "--json")
    assert "more than one version answered: 3 by version 1, 1 by version 2" in " ".join(summary(mixed)["notes"])  # type: ignore[arg-type]
    renewed = summary(scored(service, folder, out, "--changed-only", "--json"))
    assert renewed["versions"] == [["2", 4]]
    assert sorted(renewed["flips"]) == [["black", "white", 1], ["dark", "light", 1], ["light", "dark", 1]]  # type: ignore[call-overload]


def test_too_many_failures_stop_early_and_resumably(service: Service, folder: Path, out: Path) -> None:
    for number in range(40):
        (folder / f"x{number}.png").write_bytes(b"text")
    arguments = ["--max-failures", "5", "--per-request", "4", "--concurrency", "1"]
    stopped = scored(service, folder, out, *arguments)
    assert isinstance(stopped.exception, ScoringStopped)
    assert not out.exists()
    with Journal(f"{out}.journal") as journal:
        assert 6 <= journal.failures() < 40
    assert scored(service, folder, out, "--max-failures", "99%").exit_code == 1
    assert len(rows(out)) == 44
    assert scored(service, folder, out, "--max-failures", "many").exit_code == 2


def test_nothing_to_score_and_nowhere_to_write_are_said_at_once(service: Service, tmp_path: Path, out: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, target, why in (
        (tmp_path / "empty", out, "no picture"),
        (tmp_path / "nowhere", out, "There is no"),
        (tmp_path, tmp_path / "x.doc", "ending"),
    ):
        result = scored(service, source, target)
        assert isinstance(result.exception, UsageError), why
        assert why in str(result.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


@pytest.mark.integration
def test_no_service_and_no_model_at_the_start_are_exit_2(service: Service, folder: Path, out: Path) -> None:
    arguments = [str(folder), "--model", "nobody", "--out", str(out), "--url"]
    unknown = CliRunner().invoke(score, [*arguments, service.url]).exception
    assert isinstance(unknown, UsageError)
    assert (unknown.code, unknown.exit_status) == ("unknown_model", 2)
    command = [sys.executable, "-m", "clients", "score", *arguments, "http://127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, list(folder.parent.glob("out*"))) == (2, [])
    assert "No service at" in done.stderr


def test_a_second_run_into_the_same_file_is_refused(service: Service, folder: Path, out: Path) -> None:
    scored(service, folder, out)
    with Journal(f"{out}.journal"):
        result = scored(service, folder, out)
    assert isinstance(result.exception, UsageError)
    assert "in use" in str(result.exception)


def test_a_journal_that_is_none_is_refused(service: Service, folder: Path, out: Path) -> None:
    Path(f"{out}.journal").write_bytes(b"something else entirely" * 100)
    assert "not a journal" in str(scored(service, folder, out).exception)
    assert scored(service, folder, out, "--overwrite").exit_code == 0


def test_a_folder_that_holds_the_output_is_fine(service: Service, folder: Path) -> None:
    out = folder / "labels.jsonl"
    assert scored(service, folder, out).exit_code == 0
    assert scored(service, folder, out, "--changed-only").exit_code == 0
    assert len(rows(out)) == 4


def test_sqlite_output_can_be_queried(service: Service, folder: Path, tmp_path: Path) -> None:
    scored(service, folder, tmp_path / "out.sqlite")
    db = sqlite3.connect(tmp_path / "out.sqlite")
    assert db.execute("SELECT label, count(*) FROM results GROUP BY 1 ORDER BY 1").fetchall()[0] == ("black", 1)
    db.close()


def test_a_folder_of_windows_ends_well(service: Service, folder: Path, out: Path) -> None:
    for name in ("Thumbs.db", "desktop.ini", "c/Thumbs.db", ".DS_Store", "._a.png", "__MACOSX/._a.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    result = scored(service, folder, out, "--json")
    assert result.exit_code == 0
    assert sorted(summary(result)["left_out"]) == [["hidden", 2], ["of the operating system", 4]]  # type: ignore[call-overload]
    assert len(rows(out)) == 4
    again = scored(service, folder, out)
    assert "left out: 2 hidden (" in again.stdout


def test_results_are_never_inputs(service: Service, folder: Path) -> None:
    for name in ("one.csv", "two.jsonl", "three.sqlite"):
        assert scored(service, folder, folder / name).exit_code == 0
    assert len(rows(folder / "three.sqlite")) == 4
    (folder / "one.csv.journal").unlink()
    assert scored(service, folder, folder / "four.csv").exit_code == 0


def test_only_pictures_are_scored_where_one_wants_that(service: Service, folder: Path, out: Path) -> None:
    (folder / "notes.txt").write_text("x")
    (folder / "no ending").write_bytes(png(10))
    assert scored(service, folder, out, "--only-pictures").exit_code == 0
    assert len(rows(out)) == 5
    assert isinstance(scored(service, folder, out).exception, UsageError)  # another run, which would have six rows


def test_folders_named_like_labels_are_the_truth(service: Service, tmp_path: Path, out: Path) -> None:
    for name, gray in {"black/1": 10, "Black/2": 100, "white/3": 250, "else/4": 10}.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / f"{name}.png").write_bytes(png(gray))
    result = scored(service, tmp_path / "in", out, "--json")
    assert {(Path(row.path).name, row.truth) for row in rows(out)} == {
        ("1.png", "black"), ("2.png", "black"), ("3.png", "white"), ("4.png", ""),
    }  # fmt: skip
    found = summary(result)
    assert (found["with_truth"], found["accuracy"]) == (3, pytest.approx(2 / 3))
    assert "accuracy: 66.67% of the 3 with a truth" in scored(service, tmp_path / "in", out).stdout
    assert summary(scored(service, tmp_path / "in", out, "--changed-only", "--json"))["with_truth"] == 3


def test_folders_named_otherwise_are_no_truth(service: Service, folder: Path, out: Path) -> None:
    found = summary(scored(service, folder, out, "--json"))
    assert (found["with_truth"], found["accuracy"]) == (0, None)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "sqlite", "parquet"])
def test_paths_that_are_not_utf8_survive_every_way(service: Service, tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    name = os.fsdecode("고양이".encode("cp949"))
    root, out = tmp_path / os.fsdecode(b"in \xff"), tmp_path / f"{name}.{ending}"
    (root / name).mkdir(parents=True)
    (root / name / f"{name}.png").write_bytes(png(10))
    (root / name / "bad.png").write_bytes(b"x")
    result = scored(service, root, out)
    assert result.exit_code == 1, result.output
    assert "2 paths are not UTF-8; such bytes are written \\xNN." in " ".join(result.stdout.split())
    assert [row.path for row in rows(out)] == [
        shown_path(str(root / name / "bad.png")), shown_path(str(root / name / f"{name}.png")),
    ]  # fmt: skip
    (root / name / "bad.png").write_bytes(png(250))
    assert scored(service, root, out, "--retry-failed").exit_code == 0
    assert scored(service, root, out, "--changed-only").exit_code == 0
    (tmp_path / "again.txt").write_text("\n".join(row.path for row in rows(out)))
    assert scored(service, tmp_path / "again.txt", tmp_path / "again.csv").exit_code == 0


def test_a_zip_of_windows_is_named_with_what_its_names_may_be(service: Service, tmp_path: Path, out: Path) -> None:
    path = windows_zip(tmp_path / "set.zip", "cp949", {"고양이/1.png": png(10)})
    result = scored(service, path, out)
    assert result.exit_code == 0
    assert "may be cp949: 고양이" in " ".join(result.stdout.split())
    assert "--archive-encoding" in result.stdout
    assert scored(service, path, out, "--overwrite", "--archive-encoding", "cp949").exit_code == 0
    assert [row.path for row in rows(out)] == [f"{path}/고양이/1.png"]


def test_a_truth_that_is_not_utf8_is_a_row_too(service: Service, folder: Path, tmp_path: Path, out: Path) -> None:
    (tmp_path / "set.csv").write_bytes(b"path,truth\n%s,\xb0\xed\n" % os.fsencode(folder / "a.png"))
    assert scored(service, tmp_path / "set.csv", out).exit_code == 0
    assert [row.truth for row in rows(out)] == ["\\xb0\\xed"]


def test_excel_gets_its_mark_also_for_rows_that_are_there(service: Service, folder: Path, out: Path) -> None:
    assert scored(service, folder, out).exit_code == 0
    before = rows(out)
    assert scored(service, folder, out, "--excel").exit_code == 0
    assert out.read_bytes().startswith(b"\xef\xbb\xbf")
    assert rows(out) == before


def test_a_journal_of_an_older_version_is_named_as_such(service: Service, folder: Path, out: Path) -> None:
    with sqlite3.connect(f"{out}.journal") as old:  # as it was before journals had a schema version
        old.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)")
        old.execute("CREATE TABLE results (ordinal INTEGER PRIMARY KEY, status TEXT NOT NULL)")
    old.close()
    refused = scored(service, folder, out).exception
    assert isinstance(refused, NotAJournal)
    assert "the journal of an older version of Sightline" in refused.detail
    assert "--overwrite" in refused.hint
    assert scored(service, folder, out, "--overwrite").exit_code == 0
    assert len(rows(out)) == 4
